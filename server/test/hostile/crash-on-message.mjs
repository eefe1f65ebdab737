/** Loaded before the real command: plants the faults that a test asks for by process message. */
process.on("message", (fault) => {
  if (fault === "rejection") Promise.reject(new Error("planted rejection"));
  if (fault === "exception") {
    setImmediate(() => {
      throw new Error("planted exception");
    });
  }
});
// The server's life does not depend on who may send messages.
process.channel?.unref();
