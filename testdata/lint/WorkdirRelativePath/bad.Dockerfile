FROM nginx
WORKDIR usr/share/nginx
WORKDIR html
