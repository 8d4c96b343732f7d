FROM scratch AS a
COPY ok . /
COPY <<tmp /x
tmp
ADD https://example.org/tmp /

FROM scratch
COPY --from=a /tmp /tmp
