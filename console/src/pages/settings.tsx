import {
  Button,
  Group,
  NumberInput,
  Paper,
  SimpleGrid,
  Stack,
  TagsInput,
  Text,
  TextInput,
  Title,
} from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { notifications } from "@mantine/notifications";
import { type FormEvent, useState } from "react";
import { useNavigate } from "react-router";
import { ApiError, type AppLimits } from "../api.js";
import { useDeleteApplication, useInfo, useUpdateApplication } from "../queries.js";
import { Confirm } from "../ui/confirm.js";
import { Copy } from "../ui/copy.js";
import { Heading } from "../ui/heading.js";
import { Problem } from "../ui/problem.js";
import { Submit } from "../ui/submit.js";
import { isolate, nameOr, shorten } from "../ui/text.js";
import { useThisApplication } from "./application.js";

export function Settings() {
  const { app } = useThisApplication();
  return (
    <>
      <Heading
        title="Settings"
        about={
          <Group gap={4} wrap="nowrap" align="flex-start">
            <span>
              The id <span className="code">{app.id}</span> begins every channel and never changes.
            </span>
            <Copy text={app.id} what="the id" />
          </Group>
        }
      />
      <Stack maw={640} gap="lg">
        <Name />
        <Admins />
        <Limits />
        <Deletion />
      </Stack>
    </>
  );
}

function Name() {
  const { app } = useThisApplication();
  const [name, setName] = useState(app.name ?? "");
  const update = useUpdateApplication(app.id);
  const { error } = update;
  const isReady = name.trim() !== "" && name.trim() !== app.name;

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (!isReady) return;
    await update.mutateAsync({ name: name.trim() });
    notifications.show({ message: "The application has its new name." });
  };

  return (
    <Paper withBorder p="lg">
      <form onSubmit={(event) => void submit(event).catch(() => undefined)}>
        <Title order={2} size="h4" mb="sm">
          Name
        </Title>
        <TextInput
          aria-label="Name"
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          maxLength={255}
          required
          error={error instanceof ApiError ? error.fields.name : undefined}
        />
        {error !== null && !(error instanceof ApiError && "name" in error.fields) && (
          <Problem error={error} />
        )}
        <Submit mt="sm" isBusy={update.isPending} isReady={isReady}>
          Rename
        </Submit>
      </form>
    </Paper>
  );
}

function Admins() {
  const { app } = useThisApplication();
  const { data: info } = useInfo();
  const [admins, setAdmins] = useState<string[]>([...app.admins]);
  const update = useUpdateApplication(app.id);
  const { error } = update;
  const isSame = [...admins].sort().join("\n") === [...app.admins].sort().join("\n");
  const isWithoutMe =
    info !== undefined && app.admins.includes(info.username) && !admins.includes(info.username);

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (isSame) return;
    await update.mutateAsync({ admins });
    notifications.show({ message: "The application has its new admins." });
  };

  return (
    <Paper withBorder p="lg">
      <form onSubmit={(event) => void submit(event).catch(() => undefined)}>
        <Title order={2} size="h4">
          Admins
        </Title>
        <Text size="sm" c="dimmed" mb="sm">
          They see and change this application, its keys and its live traffic. Names are those that
          people sign in with. Root admins see every application anyway.
        </Text>
        <TagsInput
          aria-label="Admins"
          placeholder="Type a user name and press Enter"
          value={admins}
          onChange={setAdmins}
          maxTags={1000}
          acceptValueOnBlur
        />
        {isWithoutMe && (
          <Text size="sm" mt="xs" role="status">
            You would take yourself off this list. Unless you are a root admin, you could not come
            back by yourself.
          </Text>
        )}
        {error !== null && <Problem error={error} />}
        <Submit mt="sm" isBusy={update.isPending} isReady={!isSame}>
          Save admins
        </Submit>
      </form>
    </Paper>
  );
}

const limitFields: readonly {
  readonly name: keyof AppLimits;
  readonly label: string;
  readonly about: string;
}[] = [
  {
    name: "max_publishes_per_second",
    label: "Publishes per second",
    about: "Over REST and by clients together; each channel of a batch counts.",
  },
  {
    name: "max_message_bytes",
    label: "Bytes of a message",
    about: "Of its JSON. The server’s own limit holds anyway.",
  },
  {
    name: "max_connections",
    label: "Connections",
    about: "Clients that are subscribed to something here.",
  },
  {
    name: "max_sessions_per_second",
    label: "New connections per second",
    about: "Clients that begin to be, such as after a restart.",
  },
];
/** What the server takes, and any database holds. */
const maxLimit = 1_000_000_000;

function Limits() {
  const { app } = useThisApplication();
  const [limits, setLimits] = useState<AppLimits>({ ...app.limits });
  const update = useUpdateApplication(app.id);
  const { error } = update;
  const isSame = limitFields.every(({ name }) => limits[name] === app.limits[name]);
  const fieldErrors = error instanceof ApiError ? error.fields : {};
  const hasFieldError = Object.keys(fieldErrors).some((field) => field.startsWith("limits."));

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (isSame) return;
    await update.mutateAsync({ limits });
    notifications.show({ message: "The application has its new limits." });
  };

  return (
    <Paper withBorder p="lg">
      <form onSubmit={(event) => void submit(event).catch(() => undefined)}>
        <Title order={2} size="h4">
          Limits
        </Title>
        <Text size="sm" c="dimmed" mb="sm">
          What is beyond them is refused, with the limit’s name and when to try again; the overview
          lists such refusals. Each of the server’s nodes counts for itself. A change counts within
          a second.
        </Text>
        <SimpleGrid cols={{ base: 1, xs: 2 }}>
          {limitFields.map(({ name, label, about }) => (
            <NumberInput
              key={name}
              label={label}
              description={about}
              placeholder="No limit"
              value={limits[name] ?? ""}
              onChange={(value) =>
                setLimits({ ...limits, [name]: typeof value === "number" ? value : null })
              }
              min={1}
              max={maxLimit}
              clampBehavior="strict"
              allowDecimal={false}
              allowNegative={false}
              thousandSeparator=","
              hideControls
              error={fieldErrors[`limits.${name}`]}
            />
          ))}
        </SimpleGrid>
        {error !== null && !hasFieldError && <Problem error={error} />}
        <Submit mt="sm" isBusy={update.isPending} isReady={!isSame}>
          Save limits
        </Submit>
      </form>
    </Paper>
  );
}

/** A longer name is not typed: the id stands for it. */
const maxTyped = 60;

function Deletion() {
  const { app } = useThisApplication();
  const [isOpen, { open, close }] = useDisclosure();
  const remove = useDeleteApplication(app.id, () => navigate("/"));
  const usable = app.keys.filter(
    ({ status }) => status === "active" || status === "expiring",
  ).length;
  const navigate = useNavigate();
  const name = nameOr(app.name, app.id);
  const isEasy = name.length <= maxTyped;

  const confirm = async (): Promise<void> => {
    await remove.mutateAsync();
    notifications.show({ message: `“${isolate(shorten(name))}” is deleted.` });
  };

  return (
    <Paper withBorder p="lg">
      <Title order={2} size="h4">
        Delete
      </Title>
      <Text size="sm" c="dimmed" mb="sm">
        Its keys stop working within a second, its subscriptions end and nothing can be published to
        it any more. There is no way back.
      </Text>
      <Button color="alarm" variant="outline" onClick={open}>
        Delete this application
      </Button>
      {isOpen && (
        <Confirm
          title={
            <>
              Delete “<bdi>{shorten(name)}</bdi>”?
            </>
          }
          action="Delete for ever"
          word={isEasy ? name : app.id}
          onClose={close}
          onConfirm={confirm}
        >
          <Text size="sm">
            {usable === 1 ? "Its key stops" : `Its ${usable} keys stop`} working at once, for
            everybody who uses {usable === 1 ? "it" : "them"}.
          </Text>
        </Confirm>
      )}
    </Paper>
  );
}
