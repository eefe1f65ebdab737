import { Alert, Group, SegmentedControl, Stack, Tabs, Text, TextInput } from "@mantine/core";
import { IconSend } from "@tabler/icons-react";
import { type FormEvent, useState } from "react";
import { publish } from "../api.js";
import { useThisApplication } from "../pages/application.js";
import { Snippet } from "../ui/copy.js";
import { Submit } from "../ui/submit.js";
import { timeOfDay } from "../ui/time.js";
import { faultOf } from "./channel.js";
import type { Feed } from "./feed.js";
import { JsonEditor } from "./json-editor.js";
import { curl, javascript, page, ruby } from "./snippets.js";
import type { View } from "./view.js";

type Outcome = { readonly isDone: boolean; readonly text: string };

/** Publishes to one channel, and shows the same as code. */
export function Publisher({
  view,
  onChange,
}: {
  view: View;
  onChange: (change: Partial<View>) => void;
}) {
  const { app, feed } = useThisApplication();
  const { channel, data, via } = view;
  const [isBusy, setBusy] = useState(false);
  const [outcome, setOutcome] = useState<Outcome>();
  const channelFault = faultOf(channel, app.id, { allowsPattern: false, allowsMeta: false });
  const dataFault = faultOfJson(data);
  const { origin } = window.location;

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (isBusy || channelFault !== undefined || dataFault !== undefined) return;
    setBusy(true);
    try {
      await send(feed, channel, data, via);
      setOutcome({ isDone: true, text: `Published to ${channel} at ${timeOfDay(Date.now())}.` });
    } catch (error) {
      setOutcome({ isDone: false, text: error instanceof Error ? error.message : String(error) });
    } finally {
      setBusy(false);
    }
  };

  return (
    <Stack>
      <form onSubmit={(event) => void submit(event)}>
        <Stack gap="sm">
          <TextInput
            label="Channel"
            value={channel}
            onChange={(event) => {
              setOutcome(undefined);
              onChange({ channel: event.currentTarget.value.trim() });
            }}
            error={channelFault}
            classNames={{ input: "code" }}
            autoCapitalize="off"
            autoCorrect="off"
            spellCheck={false}
            errorProps={{ role: "status" }}
          />
          <JsonEditor
            label="Message (JSON)"
            value={data}
            onChange={(next) => onChange({ data: next })}
            error={dataFault}
          />
          <Group justify="space-between">
            <SegmentedControl
              aria-label="Publish by"
              value={via}
              onChange={(next) => onChange({ via: next === "client" ? "client" : "rest" })}
              data={[
                { value: "rest", label: "By REST" },
                { value: "client", label: "By the client" },
              ]}
            />
            <Submit
              leftSection={<IconSend size={16} aria-hidden />}
              isBusy={isBusy}
              isReady={channelFault === undefined && dataFault === undefined}
            >
              Publish
            </Submit>
          </Group>
        </Stack>
      </form>
      <div role="status">
        {outcome !== undefined && (
          <Alert
            variant="outline"
            color={outcome.isDone ? "bamboo" : "alarm"}
            title={outcome.isDone ? undefined : "It was not published"}
            withCloseButton
            closeButtonLabel="Close"
            onClose={() => setOutcome(undefined)}
          >
            <Text size="sm" style={{ overflowWrap: "anywhere" }}>
              {outcome.text}
            </Text>
          </Alert>
        )}
      </div>
      {channelFault === undefined && (
        <Tabs defaultValue="curl" keepMounted={false}>
          <Tabs.List aria-label="The same as code">
            <Tabs.Tab value="curl">curl</Tabs.Tab>
            <Tabs.Tab value="ruby">Ruby</Tabs.Tab>
            <Tabs.Tab value="javascript">JavaScript</Tabs.Tab>
            <Tabs.Tab value="page">Listen</Tabs.Tab>
          </Tabs.List>
          <Tabs.Panel value="curl" pt="sm">
            <Snippet title="curl" code={curl({ origin, channel, data })} />
          </Tabs.Panel>
          <Tabs.Panel value="ruby" pt="sm">
            <Snippet title="Ruby" code={ruby({ origin, channel, data })} />
          </Tabs.Panel>
          <Tabs.Panel value="javascript" pt="sm">
            <Snippet title="JavaScript" code={javascript({ origin, channel, data })} />
          </Tabs.Panel>
          <Tabs.Panel value="page" pt="sm">
            <Snippet title="HTML" code={page({ origin, channel })} />
          </Tabs.Panel>
        </Tabs>
      )}
    </Stack>
  );
}

/** @throws Error with the server's own words */
async function send(feed: Feed, channel: string, data: string, via: View["via"]): Promise<void> {
  const token = await feed.token(channel, { pub: true });
  if (via === "client") {
    await feed.client.publishTo(channel, token, JSON.parse(data) as unknown, { deadline: 10 });
    return;
  }
  await publish(channel, token, data);
}

export function faultOfJson(text: string): string | undefined {
  if (text.trim() === "") return 'A message is JSON, such as {"text": "hello"}, 42 or "hello".';
  try {
    JSON.parse(text);
    return undefined;
  } catch (error) {
    return `This is no JSON: ${error instanceof Error ? error.message : "unreadable"}`;
  }
}
