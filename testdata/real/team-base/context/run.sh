#!/bin/sh
cat /app/checked
