/** What react.test.ts runs in a page. */
import { Client } from "pandapush-client";
import { type ReactNode, StrictMode, useState } from "react";
import { createRoot, type Root } from "react-dom/client";
import {
  useConnectionState,
  usePresence,
  useSubscription,
} from "../../examples/react/use-pandapush.js";

declare global {
  /** Tells the test in Node. */
  function report(text: string): void;
}

let root: Root | undefined;

function show(node: ReactNode): void {
  root = createRoot(document.body.appendChild(document.createElement("main")));
  root.render(node);
}

export function unmount(): void {
  root?.unmount();
}

/** A client that reports what is asked of the server, and its answers. */
function reportingClient(push: string): Client {
  const client = new Client(push);
  client.addExtension({
    outgoing(message, pass) {
      if (message.subscription !== undefined) report(message.channel);
      pass(message);
    },
    incoming(message, pass) {
      if (message.subscription !== undefined) report(`answer to ${message.channel}`);
      pass(message);
    },
  });
  return client;
}

/** Counts messages; what it reports shows which rendering's listener was called. */
export function showCounter(push: string, channel: string, token: string, isStrict: boolean): void {
  const client = reportingClient(push);
  function Counter() {
    const [count, setCount] = useState(0);
    const hear = (data: string): void => {
      report(`${count} ${data}`);
      setCount((last) => last + 1);
    };
    useSubscription<string>(client, channel, hear, { token: () => token });
    return <output>{count} heard</output>;
  }
  show(
    isStrict ? (
      <StrictMode>
        <Counter />
      </StrictMode>
    ) : (
      <Counter />
    ),
  );
}

export function showRefusal(push: string, channel: string): void {
  const client = new Client(push);
  function Refusal() {
    const error = useSubscription(client, channel, () => {}, { token: null });
    return <output>{error?.message}</output>;
  }
  show(<Refusal />);
}

export function showMembers(push: string, channel: string, token: string): void {
  const client = new Client(push);
  function Members() {
    const { members, error } = usePresence(client, channel, token);
    return <output>{error?.message ?? [...members.keys()].sort().join()}</output>;
  }
  show(
    <StrictMode>
      <Members />
    </StrictMode>,
  );
}

/** Connects at a click, and disconnects at the next. */
export function showState(push: string): void {
  const client = new Client(push);
  function State() {
    const state = useConnectionState(client);
    return (
      <button
        type="button"
        onClick={() => (state === "connected" ? client.disconnect() : client.connect())}
      >
        <output>{state}</output>
      </button>
    );
  }
  show(<State />);
}
