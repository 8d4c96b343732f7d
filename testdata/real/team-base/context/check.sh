#!/bin/sh
echo "level $1"
