#!/bin/sh
echo "installing"
