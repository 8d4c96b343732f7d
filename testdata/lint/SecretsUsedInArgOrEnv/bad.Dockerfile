FROM scratch
ARG AWS_SECRET_ACCESS_KEY
ENV password=bar sunflower=foo apikey=
ARG github_token=x auth
