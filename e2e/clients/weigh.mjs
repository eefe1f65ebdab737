/**
 * One client in a process of its own, whose memory is therefore the client's.
 * Its parent asks for what to do, by name, and is told when it is done; `held` is told each time
 * that a connect goes out to be held.
 */
import { Client } from "pandapush-client";

Math.random = () => 0;
const [url, channel, ...disabled] = process.argv.slice(2);
const client = new Client(url);
for (const type of disabled) client.disable(type);
client.addExtension({
  outgoing(message, callback) {
    callback(message);
    if (message.channel === "/meta/connect" && message.advice === undefined) tell("held");
  },
});

const tell = (name, found) => process.send({ name, found });

const acts = {
  async subscribe() {
    await client.subscribe(channel);
  },
  async comeAndGo() {
    const subscriptions = Array.from({ length: 100 }, (_, n) => {
      const context = { signal: new AbortController().signal };
      return client.subscribe(`${channel}/${n}`, () => {}, context).on("gap", () => {});
    });
    await Promise.all(subscriptions);
    for (const subscription of subscriptions) subscription.cancel();
  },
  async weigh() {
    // What is still to be closed is closed in the turns after.
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    global.gc();
    const resources = process.getActiveResourcesInfo();
    const count = (type) => resources.filter((each) => each === type).length;
    return {
      heapBytes: process.memoryUsage().heapUsed,
      timers: count("Timeout"),
      sockets: count("TCPSocketWrap"),
    };
  },
};

process.on("message", async (name) => tell(name, await acts[name]()));
