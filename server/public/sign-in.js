/* The sign-in page: logs in, and loads the page that was asked for. */
(() => {
  const form = document.getElementById("sign-in");
  const fault = document.getElementById("fault");
  const button = form.querySelector("button");
  const { username, password } = form.elements;
  if (fault.textContent !== "") mark(true);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    // Not disabled: that would take the focus away from who pressed it.
    if (button.getAttribute("aria-disabled") !== "true") void signIn();
  });

  async function signIn() {
    button.setAttribute("aria-disabled", "true");
    mark(false);
    fault.replaceChildren();
    const refusal = await refusalOf({ username: username.value, password: password.value });
    if (refusal === undefined) {
      location.reload();
      return;
    }
    button.removeAttribute("aria-disabled");
    show(refusal);
  }

  /** @returns undefined: the session has begun */
  async function refusalOf(credentials) {
    try {
      const response = await fetch("/admin/api/login", {
        method: "POST",
        headers: { "content-type": "application/json", "x-requested-with": "sign-in" },
        body: JSON.stringify(credentials),
      });
      if (response.ok) return undefined;
      return await response.json();
    } catch {
      return { message: "The server does not answer", details: "Try again in a moment." };
    }
  }

  function show({ message, details }) {
    const text = document.createElement("p");
    const what = document.createElement("strong");
    what.textContent = `${message}.`;
    text.append(what, ` ${details}`);
    fault.replaceChildren(text);
    mark(message === "Wrong user name or password");
    password.focus();
    password.select();
  }

  function mark(isWrong) {
    for (const input of [username, password]) {
      if (isWrong) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
  }
})();
