FROM nginx AS a
WORKDIR /usr/share
WORKDIR nginx

FROM a AS b
WORKDIR html

FROM golang
WORKDIR $GOPATH/src
