#!/bin/bash
echo "installing"
