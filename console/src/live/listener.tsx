import {
  Alert,
  Badge,
  Button,
  CloseButton,
  Group,
  Pill,
  Stack,
  Text,
  TextInput,
  Title,
} from "@mantine/core";
import { IconPlayerPause, IconPlayerPlay, IconTrash } from "@tabler/icons-react";
import { type FormEvent, memo, useState } from "react";
import { useThisApplication } from "../pages/application.js";
import { Copy } from "../ui/copy.js";
import { faultOf } from "./channel.js";
import { type Heard, isPresenceRoom, type Listening, type ListeningState } from "./listening.js";
import type { View } from "./view.js";

/** Chooses what to listen to, and shows what is heard. */
export function Listener({
  view,
  onChange,
  presenceId,
  onPresenceId,
  listening,
  state,
}: {
  view: View;
  onChange: (change: Partial<View>) => void;
  /** Who one is on presence channels. */
  presenceId: string;
  onPresenceId: (id: string) => void;
  listening: Listening;
  state: ListeningState;
}) {
  const { app } = useThisApplication();
  const refused = state.ears.filter((ear) => ear.state === "refused");
  return (
    <Stack>
      <Choice view={view} onChange={onChange} presenceId={presenceId} onPresenceId={onPresenceId} />
      {state.ears.length > 0 && (
        <Group gap="xs" role="list" aria-label="Channels that are listened to">
          {state.ears.map(({ channel, state: how }) => (
            <Pill
              key={channel}
              role="listitem"
              size="md"
              withRemoveButton
              removeButtonProps={{
                "aria-label": `Stop listening to ${channel}`,
                "aria-hidden": false,
                tabIndex: 0,
              }}
              onRemove={() => onChange({ listen: view.listen.filter((each) => each !== channel) })}
            >
              <span className="code">{channel.slice(app.id.length + 1)}</span>
              {how !== "subscribed" && ` · ${how === "pending" ? "subscribing" : "refused"}`}
            </Pill>
          ))}
        </Group>
      )}
      {refused.length > 0 && (
        <Alert color="alarm" variant="outline" title="Not listening">
          {refused.map(({ channel, problem }) => (
            <Text key={channel} size="sm" style={{ overflowWrap: "anywhere" }}>
              <span className="code">{channel.slice(app.id.length + 1)}</span>: {problem}
            </Text>
          ))}
          <Button mt="sm" size="xs" variant="default" onClick={() => listening.retry()}>
            Listen again
          </Button>
        </Alert>
      )}
      <Members of={state.members} appId={app.id} />
      <Messages
        appId={app.id}
        filter={view.filter}
        onFilter={(filter) => onChange({ filter })}
        listening={listening}
        state={state}
      />
    </Stack>
  );
}

/** So that fields beside each other are on one line, whatever is said about them. */
const wrapperOrder: ("label" | "input" | "description" | "error")[] = [
  "label",
  "input",
  "description",
  "error",
];

function Choice({
  view,
  onChange,
  presenceId,
  onPresenceId,
}: {
  view: View;
  onChange: (change: Partial<View>) => void;
  presenceId: string;
  onPresenceId: (id: string) => void;
}) {
  const { app } = useThisApplication();
  const [name, setName] = useState(`/${app.id}/public/**`);
  const [isTried, setTried] = useState(false);
  const fault = faultOf(name, app.id, { allowsPattern: true, allowsMeta: true });

  const submit = (event: FormEvent): void => {
    event.preventDefault();
    setTried(true);
    if (fault !== undefined || view.listen.includes(name)) return;
    onChange({ listen: [...view.listen, name] });
    setTried(false);
  };

  return (
    <form onSubmit={submit}>
      <Group align="flex-start" gap="sm">
        <TextInput
          label="Listen to"
          description="A channel, or a pattern: * is one level, ** all below."
          inputWrapperOrder={wrapperOrder}
          value={name}
          onChange={(event) => {
            setName(event.currentTarget.value.trim());
            setTried(false);
          }}
          error={isTried ? fault : undefined}
          classNames={{ input: "code" }}
          autoCapitalize="off"
          autoCorrect="off"
          spellCheck={false}
          style={{ flex: "1 1 300px" }}
        />
        {isPresenceRoom(name) && (
          <TextInput
            label="As"
            description="Your presence id there"
            inputWrapperOrder={wrapperOrder}
            value={presenceId}
            onChange={(event) => onPresenceId(event.currentTarget.value)}
            style={{ flex: "0 1 160px" }}
          />
        )}
        <Button type="submit" className="beside-field">
          Listen
        </Button>
      </Group>
    </form>
  );
}

function Members({ of, appId }: { of: ListeningState["members"]; appId: string }) {
  return Object.entries(of).map(([channel, members]) => (
    <div key={channel}>
      <Title order={2} size="h5">
        Present on <span className="code">{channel.slice(appId.length + 1)}</span> ({members.length}
        )
      </Title>
      <Group gap={6} mt={4} role="list" aria-label={`Present on ${channel}`}>
        {members.map(({ id, ...rest }) => (
          <Badge
            key={id}
            role="listitem"
            variant="default"
            tt="none"
            size="lg"
            title={JSON.stringify({ id, ...rest })}
          >
            {typeof rest.name === "string" ? `${rest.name} (${id})` : id}
          </Badge>
        ))}
      </Group>
    </div>
  ));
}

const clock = new Intl.DateTimeFormat("en", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hour12: false,
});

function Messages({
  appId,
  filter,
  onFilter,
  listening,
  state,
}: {
  appId: string;
  filter: string;
  onFilter: (filter: string) => void;
  listening: Listening;
  state: ListeningState;
}) {
  const wanted = filter.toLowerCase();
  const shown = state.messages.filter(
    ({ channel, text }) =>
      wanted === "" ||
      channel.toLowerCase().includes(wanted) ||
      text.toLowerCase().includes(wanted),
  );
  return (
    <div>
      <Group gap="sm" mb="xs">
        <TextInput
          type="search"
          aria-label="Filter messages"
          placeholder="Filter by text or channel"
          value={filter}
          onChange={(event) => onFilter(event.currentTarget.value)}
          rightSection={
            filter === "" ? null : (
              <CloseButton size="sm" aria-label="Clear the filter" onClick={() => onFilter("")} />
            )
          }
          style={{ flex: "1 1 160px" }}
        />
        <Button
          variant="default"
          leftSection={
            state.isPaused ? (
              <IconPlayerPlay size={16} aria-hidden />
            ) : (
              <IconPlayerPause size={16} aria-hidden />
            )
          }
          onClick={() => listening.pause(!state.isPaused)}
        >
          {state.isPaused ? `Go on${state.waiting > 0 ? ` (${state.waiting})` : ""}` : "Pause"}
        </Button>
        <Button
          variant="default"
          leftSection={<IconTrash size={16} aria-hidden />}
          onClick={() => listening.clear()}
        >
          Clear
        </Button>
      </Group>
      <Text size="sm" c="dimmed" role="status">
        {told(state, shown.length)}
      </Text>
      <section className="messages" tabIndex={0} aria-label="Messages, newest first">
        <ol>
          {shown.map((message) => (
            <Message key={message.number} appId={appId} message={message} />
          ))}
        </ol>
      </section>
    </div>
  );
}

function told({ ears, messages, isPaused }: ListeningState, shown: number): string {
  if (messages.length === 0) {
    if (ears.length === 0) return "Choose a channel above: what is published to it appears here.";
    if (isPaused) return "Paused.";
    if (ears.some(({ state }) => state === "pending")) return "Subscribing …";
    if (ears.every(({ state }) => state === "refused")) return "Not listening.";
    return "Listening. Nothing has come yet.";
  }
  const count = shown === messages.length ? `${shown}` : `${shown} of ${messages.length}`;
  const pause = isPaused ? " Paused: what comes now waits." : "";
  return `${count} ${messages.length === 1 ? "message" : "messages"}, the newest first.${pause}`;
}

const Message = memo(({ appId, message }: { appId: string; message: Heard }) => {
  const { at, channel, text, size } = message;
  return (
    <li>
      <Group gap="sm" wrap="wrap">
        <Text span size="xs" c="dimmed" className="code">
          {clock.format(at)}
        </Text>
        <Text span size="sm" fw={600} className="code">
          {channel.startsWith(`/${appId}/`) ? channel.slice(appId.length + 1) : channel}
        </Text>
        {size !== undefined && (
          <Group gap={2} ml="auto" wrap="nowrap">
            <Text span size="xs" c="dimmed">
              {size.toLocaleString("en")} bytes
            </Text>
            <Copy text={text} what="the message" />
          </Group>
        )}
      </Group>
      {size === undefined ? (
        <Text size="sm" c="dimmed" fs="italic">
          {text}
        </Text>
      ) : (
        <pre className="code">{text}</pre>
      )}
    </li>
  );
});
