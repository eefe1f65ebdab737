// Publishes an order, and prints a token with which a browser may subscribe to orders for an hour.
import { Pandapush } from "pandapush";

const { PANDAPUSH_URL, APP_ID, KEY_ID, KEY_SECRET } = process.env;
const pandapush = new Pandapush({
  url: PANDAPUSH_URL,
  appId: APP_ID,
  keyId: KEY_ID,
  keySecret: KEY_SECRET,
});

await pandapush.publish("private/orders", { id: 7 }, { idempotencyKey: "order-7" });
console.log(pandapush.generateToken({ channel: "private/orders", sub: true }));
