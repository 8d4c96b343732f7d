from alpine as base
run true
copy a /
