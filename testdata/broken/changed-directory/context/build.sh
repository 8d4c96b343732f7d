#!/bin/sh
echo "building"
