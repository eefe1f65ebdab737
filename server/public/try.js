/* The welcome page: listens to ?channel= and shows what arrives. */
(() => {
  const maxShown = 100;
  const publishable = /^\/[\w~-]+\/(?:public|private|presence)(?:\/[\w~-]+)*$/;
  const byId = (id) => document.getElementById(id);
  const channel = (new URLSearchParams(location.search).get("channel") ?? "").trim();
  showExamples();
  showVersion();
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", () => copy(button));
  }
  byId("listen").addEventListener("submit", hideToken);
  window.addEventListener("hashchange", () => location.reload());
  if (window.Pandapush === undefined) show("offline", "client script did not load");
  else listen(new Pandapush.Client("/push"));

  function listen(client) {
    client.on("state", (state) => {
      if (state === "connected") show("online", state);
      else show("offline", "reconnecting");
    });
    if (channel === "") {
      client.connect();
      return;
    }
    const token = tokenOf(location.hash);
    byId("channel").value = channel;
    byId("token").value = token ?? "";
    byId("feed").hidden = false;
    const subscription = client.subscribeTo(channel, token, addMessage);
    client.on("transport:down", () => tell("offline", "Not connected; trying again…"));
    client.on("transport:up", () => {
      if (subscription.state === "subscribed") showListening();
    });
    subscription
      .on("subscribed", showListening)
      .on("resubscribed", showListening)
      .on("gap", () => addNote("Something may have been missed here."))
      .on("refused", ({ message, detail = "" }) =>
        tell("refused", `Not listening: ${message}. ${detail}`.trim()),
      );
  }

  function showListening() {
    byId("advice").hidden = true;
    const hint = byId("messages").children.length === 0 ? "; publish something below." : "";
    tell("listening", `Listening to ${channel}${hint}`);
  }

  function show(state, text) {
    const output = byId("state");
    output.dataset.state = state;
    output.textContent = text;
  }

  function tell(state, text) {
    const output = byId("subscription");
    output.dataset.state = state;
    output.textContent = text;
  }

  /** A token travels behind the #, where no server and no log sees it. */
  function tokenOf(hash) {
    return new URLSearchParams(hash.slice(1)).get("token");
  }

  function hideToken() {
    const token = byId("token").value.trim();
    byId("listen").action = token === "" ? "/" : `/#token=${encodeURIComponent(token)}`;
  }

  function addNote(text) {
    const item = document.createElement("li");
    item.className = "note";
    item.textContent = text;
    byId("messages").prepend(item);
  }

  function addMessage(data, from) {
    const item = document.createElement("li");
    const head = document.createElement("div");
    const time = document.createElement("time");
    const now = new Date();
    time.dateTime = now.toISOString();
    time.textContent = now.toLocaleTimeString();
    head.append(time);
    if (from !== channel) head.append(` ${from}`);
    const body = document.createElement("pre");
    body.textContent = readable(data);
    item.append(head, body);
    const list = byId("messages");
    list.prepend(item);
    while (list.children.length > maxShown) list.lastElementChild.remove();
    showListening();
  }

  /** On one line while it is short. */
  function readable(data) {
    const line = JSON.stringify(data);
    return line.length <= 60 ? line : JSON.stringify(data, null, 2);
  }

  function showExamples() {
    // Publishing takes a name where listening also takes a pattern.
    const target = channel.replace(/\*{1,2}$/, "hello") || "/APP_ID/public/hello";
    if (!publishable.test(target)) {
      for (const id of ["curl", "snippet"]) byId(id).closest("section").hidden = true;
      return;
    }
    byId("curl").firstChild.textContent =
      `curl -u KEY_ID:KEY_SECRET -H 'Content-Type: application/json' ` +
      `-d '{"text":"hello"}' ${location.origin}/channel${target}`;
    byId("snippet").firstChild.textContent = [
      `<script src="${location.origin}/client.js"></script>`,
      "<script>",
      `  const client = new Pandapush.Client("${location.origin}/push");`,
      `  client.subscribe(${JSON.stringify(channel || target)}, (message) => {`,
      "    console.log(message);",
      "  }).then(",
      '    () => console.log("listening"),',
      "    (error) => console.error(error.message),",
      "  );",
      "</script>",
    ].join("\n");
  }

  function copy(button) {
    const source = byId(button.dataset.copies);
    const done = (text) => {
      button.textContent = text;
      setTimeout(() => {
        button.textContent = "Copy";
      }, 2000);
    };
    // Browsers offer the clipboard only over HTTPS and on localhost.
    if (navigator.clipboard === undefined) {
      getSelection().selectAllChildren(source);
      done("Selected");
      return;
    }
    navigator.clipboard.writeText(source.textContent).then(
      () => done("Copied"),
      () => done("Not allowed"),
    );
  }

  function showVersion() {
    fetch("/health_check.json")
      .then((response) => response.json())
      .then(({ version }) => {
        byId("version").textContent = `Pandapush ${version}`;
      })
      .catch((error) => console.warn("No version:", error));
  }
})();
