FROM scratch
ARG to=/dest/
COPY one two /dest/
COPY one two .
COPY one two ./.
COPY ["one", "two", "/dest/"]
ADD one two $to
COPY one /dest
COPY o* /dest
COPY --parents one two /dest
COPY --parents=false one /dest
