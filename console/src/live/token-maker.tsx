import { Checkbox, Group, Select, Stack, Text, TextInput } from "@mantine/core";
import { type FormEvent, useState } from "react";
import { ApiError, consolePurpose, post } from "../api.js";
import { useThisApplication } from "../pages/application.js";
import { Snippet } from "../ui/copy.js";
import { jsonOf, pretty } from "../ui/json.js";
import { Problem } from "../ui/problem.js";
import { Submit } from "../ui/submit.js";
import { nameOr } from "../ui/text.js";
import { inFull } from "../ui/time.js";
import { faultOf } from "./channel.js";
import { isPresenceRoom } from "./listening.js";
import { page } from "./snippets.js";
import type { TokenForm } from "./view.js";

const lifetimes = [
  { value: "600", label: "10 minutes" },
  { value: "3600", label: "1 hour" },
  { value: "86400", label: "1 day" },
  { value: "2592000", label: "30 days" },
];

/** Makes a token as a back end would, and shows what is in it. */
export function TokenMaker({
  form,
  onChange,
}: {
  form: TokenForm;
  onChange: (form: TokenForm) => void;
}) {
  const { app } = useThisApplication();
  const [made, setMade] = useState<{ readonly token: string; readonly channel: string }>();
  const [error, setError] = useState<Error>();
  const [isBusy, setBusy] = useState(false);
  const change = (part: Partial<TokenForm>): void => {
    // It is not the token of what stands in the form now.
    setMade(undefined);
    onChange({ ...form, ...part });
  };
  const { channel } = form;
  const isWhole = channel === `/${app.id}/**`;
  const channelFault = isWhole
    ? undefined
    : faultOf(channel, app.id, { allowsPattern: true, allowsMeta: true });
  const presence = parsePresence(form.presence);
  const claims = made === undefined ? {} : decode(made.token);
  const fields = error instanceof ApiError ? error.fields : {};
  const keys = app.keys.filter(
    ({ status, purpose }) =>
      (status === "active" || status === "expiring") && purpose !== consolePurpose,
  );

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (isBusy || channelFault !== undefined || presence.fault !== undefined) return;
    setBusy(true);
    setError(undefined);
    try {
      const path = form.key === "" ? "token" : `keys/${form.key}/token`;
      const expires = new Date(Date.now() + Number(form.lifetime) * 1000).toISOString();
      const { sub, pub } = form;
      const body = {
        channel,
        sub,
        pub,
        expires,
        ...(presence.value && { presence: presence.value }),
      };
      const { token } = await post<{ token: string }>(`/application/${app.id}/${path}`, body);
      setMade({ token, channel });
    } catch (failure) {
      setError(failure instanceof Error ? failure : new Error(String(failure)));
    } finally {
      setBusy(false);
    }
  };

  return (
    <Stack>
      <form onSubmit={(event) => void submit(event)}>
        <Stack gap="sm">
          <TextInput
            label="Channel or pattern"
            description="What the token opens: one channel, or many with * or **."
            value={channel}
            onChange={(event) => change({ channel: event.currentTarget.value.trim() })}
            error={channelFault ?? fields.channel}
            errorProps={{ role: "status" }}
            classNames={{ input: "code" }}
            autoCapitalize="off"
            autoCorrect="off"
            spellCheck={false}
          />
          <Group>
            <Checkbox
              label="May subscribe"
              checked={form.sub}
              onChange={(event) => change({ sub: event.currentTarget.checked })}
            />
            <Checkbox
              label="May publish"
              checked={form.pub}
              onChange={(event) => change({ pub: event.currentTarget.checked })}
            />
          </Group>
          <TextInput
            label="Presence"
            description="For presence channels: who its bearer is. An id, or JSON with an id and whatever the others shall see."
            placeholder='{"id": "42", "name": "Ann"}'
            value={form.presence}
            onChange={(event) => change({ presence: event.currentTarget.value })}
            error={
              presence.fault ??
              fields.presence ??
              (isPresenceRoom(channel) && form.sub && presence.value === undefined
                ? "Nobody joins a presence channel without an id."
                : undefined)
            }
            errorProps={{ role: "status" }}
            classNames={{ input: "code" }}
          />
          <Group grow align="flex-start">
            <Select
              label="Valid for"
              data={lifetimes}
              value={
                lifetimes.some(({ value }) => value === form.lifetime) ? form.lifetime : "3600"
              }
              onChange={(value) => change({ lifetime: value ?? "3600" })}
              allowDeselect={false}
              error={fields.expires}
            />
            <Select
              label="Signed by"
              data={[
                { value: "", label: "this console" },
                ...keys.map(({ id, purpose }) => ({ value: id, label: nameOr(purpose, id) })),
              ]}
              value={keys.some(({ id }) => id === form.key) ? form.key : ""}
              onChange={(value) => change({ key: value ?? "" })}
              allowDeselect={false}
              searchable={keys.length > 8}
            />
          </Group>
          {error !== undefined && Object.keys(fields).length === 0 && <Problem error={error} />}
          <Group justify="flex-end">
            <Submit
              isBusy={isBusy}
              isReady={channelFault === undefined && presence.fault === undefined}
            >
              Make a token
            </Submit>
          </Group>
        </Stack>
      </form>
      {made !== undefined && (
        <Stack gap="sm">
          <Text size="sm">
            Whoever has this token has its rights until {inFull(endOf(claims))}; it is not kept
            anywhere.
          </Text>
          <div className="wrapped">
            <Snippet title="Token" code={made.token} />
          </div>
          <div className="wrapped">
            <Snippet title="What it says" code={pretty(jsonOf(claims)).text} />
          </div>
          <Snippet title="HTML" code={page({ origin: window.location.origin, ...made })} />
        </Stack>
      )}
    </Stack>
  );
}

function parsePresence(text: string): {
  value?: { id: string | number; [claim: string]: unknown };
  fault?: string;
} {
  const trimmed = text.trim();
  if (trimmed === "") return {};
  if (!trimmed.startsWith("{")) return { value: { id: trimmed } };
  try {
    const value = JSON.parse(trimmed) as { id?: unknown };
    const { id } = value;
    if ((typeof id === "string" && id !== "") || typeof id === "number") {
      return { value: { ...value, id } };
    }
    return { fault: 'It needs an id, such as {"id": "42"}.' };
  } catch (error) {
    return { fault: `This is no JSON: ${error instanceof Error ? error.message : "unreadable"}` };
  }
}

function decode(token: string): Record<string, unknown> {
  const payload = token.split(".")[1] ?? "";
  const bytes = Uint8Array.from(atob(payload.replaceAll("-", "+").replaceAll("_", "/")), (each) =>
    each.charCodeAt(0),
  );
  return JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
}

/** RFC 7519, section 4.1.4: in seconds. */
function endOf({ exp }: Record<string, unknown>): number {
  return Number(exp) * 1000;
}
