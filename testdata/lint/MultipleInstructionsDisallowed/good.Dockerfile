FROM scratch AS a
CMD ["a"]
ENTRYPOINT ["a"]

FROM a
CMD ["b"]
ENTRYPOINT ["b"]
