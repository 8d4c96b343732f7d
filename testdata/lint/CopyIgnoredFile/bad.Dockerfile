FROM scratch
COPY tmp/file ok /
ADD ./tmp /x/
