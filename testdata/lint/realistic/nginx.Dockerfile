FROM node:22 AS web
WORKDIR /web
COPY package*.json ./
RUN npm ci
COPY . .
RUN npm run build

FROM nginx:1.27-alpine
COPY --from=web /web/dist /usr/share/nginx/html
COPY <<'EOF' /etc/nginx/conf.d/default.conf
server {
  listen 80;
  location / {
    try_files $uri $uri/ /index.html;
    proxy_set_header Host $host;
  }
}
EOF
EXPOSE 80
CMD ["nginx", "-g", "daemon off;"]
