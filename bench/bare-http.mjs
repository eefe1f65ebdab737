/** The least that an HTTP server in Node can do with a publish: parse its JSON and say OK. */
import http from "node:http";

const server = http.createServer((request, response) => {
  let body = "";
  request.setEncoding("utf8");
  request.on("data", (text) => {
    body += text;
  });
  request.on("end", () => {
    if (body !== "") JSON.parse(body);
    response.end("OK");
  });
});
server.listen(Number(process.env.PORT), "127.0.0.1");
