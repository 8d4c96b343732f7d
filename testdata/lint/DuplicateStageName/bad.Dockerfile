FROM scratch AS b
FROM scratch AS other
FROM scratch AS b
