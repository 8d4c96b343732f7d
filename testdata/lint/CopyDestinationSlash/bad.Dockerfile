FROM scratch
ARG to=/dest
COPY one two /dest
COPY ["one", "two", "/dest"]
ADD one two ./dest
COPY --link one two $to
COPY one <<two /dest
text
two
