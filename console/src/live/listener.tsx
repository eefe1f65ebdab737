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
import { type FormEvent, memo, type UIEvent, useMemo, useState } from "react";
import { useThisApplication } from "../pages/application.js";
import { Copy } from "../ui/copy.js";
import { brief, jsonOf, pretty } from "../ui/json.js";
import { timeOfDay } from "../ui/time.js";
import { faultOf } from "./channel.js";
import type { Connection } from "./feed.js";
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
  connection,
}: {
  view: View;
  onChange: (change: Partial<View>) => void;
  /** Who one is on presence channels. */
  presenceId: string;
  onPresenceId: (id: string) => void;
  listening: Listening;
  state: ListeningState;
  connection: Connection;
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
      {state.missedAt !== undefined && (
        <Alert
          color="yellow"
          variant="outline"
          title="Something may be missing"
          role="status"
          withCloseButton
          closeButtonLabel="Close"
          onClose={() => listening.forgive()}
        >
          <Text size="sm">
            The connection was lost and is back since {timeOfDay(state.missedAt)}. What was
            published meanwhile may not be in the list.
          </Text>
        </Alert>
      )}
      <Messages
        appId={app.id}
        filter={view.filter}
        onFilter={(filter) => onChange({ filter })}
        listening={listening}
        state={state}
        connection={connection}
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

/** Of a room with more members the others are counted only. */
const maxMembers = 100;

const Members = memo(({ of, appId }: { of: ListeningState["members"]; appId: string }) =>
  Object.entries(of).map(([channel, members]) => (
    <div key={channel}>
      <Title order={2} size="h5" className="broken">
        Present on <span className="code">{channel.slice(appId.length + 1)}</span> ({members.length}
        )
      </Title>
      <Group gap={6} mt={4} role="list" aria-label={`Present on ${channel}`}>
        {members.slice(0, maxMembers).map(({ id, ...rest }) => (
          <Badge
            key={id}
            role="listitem"
            variant="default"
            tt="none"
            size="lg"
            maw="100%"
            title={brief(jsonOf({ id, ...rest }), 300).text}
          >
            <bdi>{brief(typeof rest.name === "string" ? `${rest.name} (${id})` : id, 60).text}</bdi>
          </Badge>
        ))}
        {members.length > maxMembers && (
          <Text size="sm" c="dimmed" role="listitem">
            and {members.length - maxMembers} more
          </Text>
        )}
      </Group>
    </div>
  )),
);

const clock = new Intl.DateTimeFormat("en", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hour12: false,
});

/** How many messages are on the page at first, and come in addition when one scrolls down. */
const step = 30;

function Messages({
  appId,
  filter,
  onFilter,
  listening,
  state,
  connection,
}: {
  appId: string;
  filter: string;
  onFilter: (filter: string) => void;
  listening: Listening;
  state: ListeningState;
  connection: Connection;
}) {
  const [most, setMost] = useState(step);
  const { messages } = state;
  const isWanted = useMemo(() => matcherOf(filter), [filter]);
  const shown = useMemo(() => messages.filter(isWanted), [messages, isWanted]);
  const follow = ({ currentTarget }: UIEvent<HTMLElement>): void => {
    const { scrollTop, scrollHeight, clientHeight } = currentTarget;
    // Whoever looks at the newest does not pay for all the others.
    if (scrollTop === 0) setMost(step);
    else if (scrollTop + 2 * clientHeight > scrollHeight && most < shown.length) {
      setMost(most + step);
    }
  };
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
          className="filter"
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
      <Text size="sm" c="dimmed" role="status" mb={6}>
        {told(state, shown, connection)}
      </Text>
      <section
        className="messages"
        tabIndex={0}
        aria-label="Messages, newest first"
        onScroll={follow}
      >
        <ol>
          {shown.slice(0, most).map((message) => (
            <Message key={message.number} appId={appId} message={message} />
          ))}
        </ol>
        {shown.length > most && (
          <Button variant="subtle" size="xs" fullWidth onClick={() => setMost(most + step)}>
            Show older ({shown.length - most})
          </Button>
        )}
      </section>
    </div>
  );
}

/** Finds text as it stands in a message, and as the page shows it; remarks are always shown. */
function matcherOf(filter: string): (message: Heard) => boolean {
  const asShown = filter.trim().toLowerCase();
  const asSent = asShown.replace(/\s*([:,{}[\]])\s*/g, "$1");
  const known = new WeakMap<Heard, boolean>();
  const find = ({ channel, text }: Heard): boolean => {
    const lower = text.toLowerCase();
    return lower.includes(asShown) || lower.includes(asSent) || channel.includes(asShown);
  };
  return (message) => {
    if (asShown === "" || message.isRemark) return true;
    const isFound = known.get(message) ?? find(message);
    known.set(message, isFound);
    return isFound;
  };
}

function told(
  { ears, messages, isPaused }: ListeningState,
  shown: readonly Heard[],
  connection: Connection,
): string {
  if (messages.length === 0) {
    if (ears.length === 0) return "Choose a channel above: what is published to it appears here.";
    if (isPaused) return "Paused.";
    if (connection === "lost") return "Reconnecting …";
    if (ears.some(({ state }) => state === "pending")) return "Subscribing …";
    if (ears.every(({ state }) => state === "refused")) return "Not listening.";
    return "Listening. Nothing has come yet.";
  }
  const [all, some] = [messages, shown].map((list) => list.filter((each) => !each.isRemark).length);
  const count = some === all ? `${all}` : `${some} of ${all}`;
  const pause = isPaused ? " Paused: what comes now waits." : "";
  return `${count} ${all === 1 ? "message" : "messages, the newest first"}.${pause}`;
}

const encoder = new TextEncoder();

const Message = memo(({ appId, message }: { appId: string; message: Heard }) => {
  const { at, channel, text, isRemark } = message;
  return (
    <li>
      <Group gap="sm" wrap="wrap" style={{ rowGap: 0 }}>
        <Text span size="xs" c="dimmed" className="code">
          {clock.format(at)}
        </Text>
        <Text span size="sm" fw={600} className="code">
          {channel.startsWith(`/${appId}/`) ? channel.slice(appId.length + 1) : channel}
        </Text>
        {!isRemark && (
          <Group gap={2} ml="auto" wrap="nowrap">
            <Text span size="xs" c="dimmed">
              {encoder.encode(text).length.toLocaleString("en")} bytes
            </Text>
            <Copy text={text} what="the message" />
          </Group>
        )}
      </Group>
      {isRemark ? (
        <Text size="sm" c="dimmed" fs="italic">
          {text}
        </Text>
      ) : (
        <Pretty json={text} />
      )}
    </li>
  );
});

function Pretty({ json }: { json: string }) {
  const { text, isShortened } = pretty(json);
  return (
    <>
      <pre className="code">{text}</pre>
      {isShortened && (
        <Text size="xs" c="dimmed" fs="italic">
          … shortened: a copy has all of it
        </Text>
      )}
    </>
  );
}
