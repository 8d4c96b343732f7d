# check=experimental=all
# VERSION is what to build
ARG VERSION=1

# base is where all begins
FROM scratch AS base
# a comment

ARG a
# another
#
ARG b
# nothing to name
FROM base
