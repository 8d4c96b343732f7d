# check=experimental=InvalidDefinitionDescription
# the version to build
ARG VERSION=1

# where all begins
FROM scratch AS base
# two
ARG a b
