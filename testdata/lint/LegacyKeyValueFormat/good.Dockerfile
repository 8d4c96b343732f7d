FROM scratch
ENV DEPS="curl git make"
LABEL key=value other="two words"
