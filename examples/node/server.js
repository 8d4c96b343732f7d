// An app that greets: GET /NAME.
const http = require("node:http");

function greeting(path) {
  return `good day, ${path.replaceAll("/", "") || "world"}\n`;
}

if (require.main === module) {
  http.createServer((request, response) => response.end(greeting(request.url))).listen(3000);
}

module.exports = { greeting };
