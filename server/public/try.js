/* The welcome page: listens to ?channel= through Faye's browser client and shows what arrives. */
(() => {
  const maxShown = 100;
  const byId = (id) => document.getElementById(id);
  const channel = (new URLSearchParams(location.search).get("channel") ?? "").trim();

  showExamples();
  showVersion();
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", () => copy(button));
  }
  if (window.Faye === undefined) show("offline", "client script did not load");
  else listen(new Faye.Client("/push"));

  function listen(client) {
    client.on("transport:up", () => show("online", "connected"));
    client.on("transport:down", () => show("offline", "reconnecting"));
    if (channel === "") {
      client.connect();
      return;
    }
    byId("channel").value = channel;
    byId("feed").hidden = false;
    client
      .subscribe(channel)
      .withChannel(addMessage)
      .then(
        () => {
          byId("advice").hidden = true;
          tell("listening", `Listening to ${channel}; publish something below.`);
        },
        (error) => tell("refused", `Not listening: ${error.message}`),
      );
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

  function addMessage(from, data) {
    tell("listening", `Listening to ${channel}`);
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
  }

  /** On one line while it is short. */
  function readable(data) {
    const line = JSON.stringify(data);
    return line.length <= 60 ? line : JSON.stringify(data, null, 2);
  }

  function showExamples() {
    // Publishing takes a name where listening also takes a pattern.
    const target = channel.replace(/\*{1,2}$/, "hello") || "/APP_ID/public/hello";
    byId("curl").firstChild.textContent =
      `curl -u KEY_ID:KEY_SECRET -H 'Content-Type: application/json' ` +
      `-d '{"text":"hello"}' ${location.origin}/channel${target}`;
    byId("snippet").firstChild.textContent = [
      `<script src="${location.origin}/push/client.js"></script>`,
      "<script>",
      `  const client = new Faye.Client("${location.origin}/push");`,
      `  client.subscribe(${JSON.stringify(channel || target)}, (message) => {`,
      "    console.log(message);",
      "  });",
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
