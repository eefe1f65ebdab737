/** npm `faye`'s own server, as its documentation starts it. */
import http from "node:http";
import faye from "faye-1.4.3";

const pages = http.createServer((_request, response) => response.end("ok"));
new faye.NodeAdapter({ mount: "/push", timeout: Number(process.env.TIMEOUT_SECONDS) }).attach(
  pages,
);
pages.listen(Number(process.env.PORT), "127.0.0.1");
