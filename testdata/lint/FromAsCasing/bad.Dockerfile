FROM scratch as one
FROM scratch As two
