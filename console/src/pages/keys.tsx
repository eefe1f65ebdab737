import {
  ActionIcon,
  Badge,
  Button,
  Group,
  Menu,
  Select,
  Skeleton,
  Stack,
  Text,
  TextInput,
} from "@mantine/core";
import { DateTimePicker } from "@mantine/dates";
import { notifications } from "@mantine/notifications";
import { IconDots, IconPlus } from "@tabler/icons-react";
import dayjs from "dayjs";
import { type FormEvent, type ReactNode, useState } from "react";
import { ApiError, type CreatedKey, consolePurpose, type Key, type RotatedKey } from "../api.js";
import { useCreateKey, useDeleteKey, useKeys, useRevokeKey, useRotateKey } from "../queries.js";
import { Confirm } from "../ui/confirm.js";
import { Copy } from "../ui/copy.js";
import { DataTable } from "../ui/data-table.js";
import { Dialog } from "../ui/dialog.js";
import { Empty } from "../ui/empty.js";
import { Heading } from "../ui/heading.js";
import { Name } from "../ui/name.js";
import { Pages, useListPlace } from "../ui/paging.js";
import { Problem } from "../ui/problem.js";
import { Search } from "../ui/search.js";
import { Secret } from "../ui/secret.js";
import { Submit } from "../ui/submit.js";
import { nameOr, shorten } from "../ui/text.js";
import { inFull, When } from "../ui/time.js";
import { useThisApplication } from "./application.js";

/** What is done, and to which key. */
type Deed =
  | { readonly name: "create" }
  | { readonly name: "rotate" | "revoke" | "delete"; readonly key: Key }
  | { readonly name: "show"; readonly key: CreatedKey | RotatedKey; readonly note: ReactNode };

export function Keys() {
  const { app } = useThisApplication();
  const [deed, setDeed] = useState<Deed>();
  const done = (): void => setDeed(undefined);
  const isNew = app.keys.every(({ purpose }) => purpose === consolePurpose);
  return (
    <>
      <Heading title="Keys" about="Back ends publish and sign tokens with them.">
        <Button
          leftSection={<IconPlus size={16} aria-hidden />}
          onClick={() => setDeed({ name: "create" })}
        >
          New key
        </Button>
      </Heading>
      {isNew ? (
        <Empty title="No key yet">
          <Text c="dimmed">
            A key lets a back end publish to this application, and sign the tokens with which
            browsers listen to private channels. Its secret stays on your servers. Give each of them
            a key of its own: then one can be revoked without the others.
          </Text>
          <Button mt="sm" onClick={() => setDeed({ name: "create" })}>
            Create a key
          </Button>
        </Empty>
      ) : (
        <KeyList onChoose={setDeed} />
      )}
      {deed?.name === "create" && (
        <NewKey
          appId={app.id}
          onClose={done}
          onCreated={(key) =>
            setDeed({ name: "show", key, note: "It works from this moment on, on every node." })
          }
        />
      )}
      {deed?.name === "rotate" && (
        <Rotation
          appId={app.id}
          of={deed.key}
          onClose={done}
          onRotated={(key, note) => setDeed({ name: "show", key, note })}
        />
      )}
      {deed?.name === "show" && (
        <Secret keyId={deed.key.id} secret={deed.key.secret} note={deed.note} onClose={done} />
      )}
      {deed?.name === "revoke" && <Revocation appId={app.id} of={deed.key} onClose={done} />}
      {deed?.name === "delete" && <Deletion appId={app.id} of={deed.key} onClose={done} />}
    </>
  );
}

function KeyList({ onChoose }: { onChoose: (deed: Deed) => void }) {
  const { app } = useThisApplication();
  const place = useListPlace();
  const { search, window, set } = place;
  const { data, error, refetch } = useKeys(app.id, window);
  return (
    <>
      <Search
        label="Search keys"
        placeholder="Search by purpose or id"
        value={search}
        onChange={(next) => set({ search: next, page: "" })}
      />
      {error !== null && <Problem error={error} onRetry={() => refetch()} />}
      {data === undefined && error === null && <Skeleton height={180} />}
      {data?.total === 0 && (
        <Empty title="Nothing found">
          <Text c="dimmed">No key has “{search}” in its purpose or id.</Text>
        </Empty>
      )}
      {data !== undefined && data.total > 0 && (
        <>
          <div className="wraps">
            <KeyTable keys={data.items} onChoose={onChoose} />
          </div>
          <Pages total={data.total} place={place}>
            {data.total === 1 ? "1 key" : `${data.total} keys`}
          </Pages>
        </>
      )}
    </>
  );
}

function KeyTable({ keys, onChoose }: { keys: readonly Key[]; onChoose: (deed: Deed) => void }) {
  return (
    <DataTable
      label="Keys"
      rows={keys}
      keyOf={({ id }) => id}
      columns={[
        {
          name: "Purpose",
          cell: ({ purpose }) => (
            <>
              <Text size="sm" fw={600}>
                <Name width={11}>{nameOr(purpose, "(none given)")}</Name>
              </Text>
              {purpose === consolePurpose && (
                <Text size="xs" c="dimmed">
                  signs what this console does
                </Text>
              )}
            </>
          ),
        },
        { name: "Status", cell: (key) => <Status of={key} /> },
        {
          name: "Key id",
          cell: ({ id, purpose }) => (
            <Group gap={4} wrap="nowrap">
              <span className="code id">{id}</span>
              <Copy text={id} what={`the id of ${nameOr(purpose, id)}`} />
            </Group>
          ),
        },
        { name: "Expires", cell: ({ expires }) => <When at={expires} /> },
        {
          name: "Created",
          cell: ({ created_at, created_by }) => (
            <>
              <When at={created_at} none="–" />
              <Text size="xs" c="dimmed" component="div">
                <Name width={9}>{`by ${created_by ?? "–"}`}</Name>
              </Text>
            </>
          ),
        },
        { name: "Last used", cell: ({ last_used }) => <When at={last_used} /> },
        {
          name: "Uses",
          isNumber: true,
          cell: ({ use_count }) => use_count.toLocaleString("en"),
        },
        { name: "", cell: (key) => <Actions of={key} onChoose={onChoose} /> },
      ]}
    />
  );
}

function Actions({ of, onChoose }: { of: Key; onChoose: (deed: Deed) => void }) {
  const isRevoked = of.status === "revoked";
  const isExpired = of.status === "expired";
  return (
    <Menu position="bottom-end">
      <Menu.Target>
        <ActionIcon variant="subtle" color="gray" aria-label={`Actions for ${labelOf(of)}`}>
          <IconDots size={18} aria-hidden />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item
          disabled={isRevoked || isExpired}
          onClick={() => onChoose({ name: "rotate", key: of })}
        >
          New secret (rotate) …
          {isExpired && <Text size="xs">It has expired: create a new key.</Text>}
        </Menu.Item>
        <Menu.Item disabled={isRevoked} onClick={() => onChoose({ name: "revoke", key: of })}>
          Revoke …
        </Menu.Item>
        <Menu.Item onClick={() => onChoose({ name: "delete", key: of })}>Delete …</Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}

function labelOf({ purpose, id }: Key): string {
  return shorten(nameOr(purpose, id));
}

const statuses: Record<Key["status"], { color: string; label: string }> = {
  active: { color: "bamboo.4", label: "Active" },
  expiring: { color: "yellow", label: "Expiring soon" },
  expired: { color: "gray", label: "Expired" },
  revoked: { color: "red", label: "Revoked" },
};

function Status({ of }: { of: Key }) {
  const { color, label } = statuses[of.status];
  return (
    <Stack gap={2} align="flex-start">
      <Badge variant="dot" color={color} tt="none" miw="max-content">
        {label}
      </Badge>
      {of.revoked_at !== null && (
        <Text size="xs" c="dimmed" component="div">
          <Name width={9}>{`by ${of.revoked_by ?? "–"}`}</Name>
          <When at={of.revoked_at} />
        </Text>
      )}
      {of.previous_secrets_until.map((until) => (
        <Text key={until} size="xs" c="dimmed">
          old secret ends <When at={until} />
        </Text>
      ))}
    </Stack>
  );
}

const lifetimes = [
  { value: "month", label: "30 days" },
  { value: "quarter", label: "90 days" },
  { value: "year", label: "1 year" },
  { value: "decade", label: "10 years" },
  { value: "never", label: "Never" },
  { value: "custom", label: "At a time that I choose" },
];

function NewKey({
  appId,
  onClose,
  onCreated,
}: {
  appId: string;
  onClose: () => void;
  onCreated: (key: CreatedKey) => void;
}) {
  const [purpose, setPurpose] = useState("");
  const [lifetime, setLifetime] = useState("year");
  const [chosenEnd, setChosenEnd] = useState<string | null>(null);
  const create = useCreateKey(appId);
  const { error } = create;
  const fields = error instanceof ApiError ? error.fields : {};
  const end = endOf(lifetime, chosenEnd);
  const isReady = lifetime !== "custom" || chosenEnd !== null;

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (!isReady) return;
    const key = await create.mutateAsync({
      purpose: purpose.trim() || null,
      expires: end?.toISOString() ?? null,
    });
    onCreated(key);
  };

  return (
    <Dialog title="New key" onClose={onClose}>
      <form onSubmit={(event) => void submit(event).catch(() => undefined)}>
        <Stack>
          <TextInput
            label="Purpose"
            description="Who will use it, so that you know later what you may revoke."
            placeholder="Gradebook, production"
            value={purpose}
            onChange={(event) => setPurpose(event.currentTarget.value)}
            error={fields.purpose}
            maxLength={255}
            data-autofocus
          />
          <Select
            label="Expires after"
            data={lifetimes}
            value={lifetime}
            onChange={(value) => setLifetime(value ?? "year")}
            allowDeselect={false}
            error={lifetime === "custom" ? undefined : fields.expires}
          />
          {lifetime === "custom" && (
            <DateTimePicker
              label="Expires at"
              value={chosenEnd}
              onChange={setChosenEnd}
              minDate={dayjs().format("YYYY-MM-DD HH:mm:ss")}
              valueFormat="D MMM YYYY HH:mm"
              placeholder="Choose a day and time"
              ariaLabels={{
                nextMonth: "Next month",
                previousMonth: "Previous month",
                nextYear: "Next year",
                previousYear: "Previous year",
                nextDecade: "Next decade",
                previousDecade: "Previous decade",
                monthLevelControl: "Choose a month",
                yearLevelControl: "Choose a year",
              }}
              submitButtonProps={{ "aria-label": "Take this time" }}
              error={fields.expires}
              required
            />
          )}
          <Text size="sm" c="dimmed">
            {end === undefined
              ? "It works until it is revoked."
              : `It works until ${dayjs(end).format("D MMMM YYYY, HH:mm")}, or until it is revoked.`}
          </Text>
          {error !== null && Object.keys(fields).length === 0 && <Problem error={error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              Cancel
            </Button>
            <Submit isBusy={create.isPending} isReady={isReady}>
              Create key
            </Submit>
          </Group>
        </Stack>
      </form>
    </Dialog>
  );
}

/** @returns undefined: it does not end by itself */
function endOf(lifetime: string, chosen: string | null): Date | undefined {
  switch (lifetime) {
    case "month":
      return dayjs().add(30, "day").toDate();
    case "quarter":
      return dayjs().add(90, "day").toDate();
    case "year":
      return dayjs().add(1, "year").toDate();
    case "decade":
      return dayjs().add(10, "year").toDate();
    case "custom":
      return chosen === null ? undefined : dayjs(chosen).toDate();
    default:
      return undefined;
  }
}

const overlaps = [
  { value: "0", label: "Not at all: it stops now" },
  { value: "3600000", label: "1 hour" },
  { value: "86400000", label: "1 day" },
  { value: "604800000", label: "1 week" },
  { value: "2592000000", label: "30 days" },
];

function Rotation({
  appId,
  of,
  onClose,
  onRotated,
}: {
  appId: string;
  of: Key;
  onClose: () => void;
  onRotated: (key: RotatedKey, note: string) => void;
}) {
  const [overlap, setOverlap] = useState("86400000");
  const earlier = of.previous_secrets_until;
  const rotate = useRotateKey(appId);
  return (
    <Confirm
      title={
        <>
          New secret for “<bdi>{labelOf(of)}</bdi>”
        </>
      }
      action="Make a new secret"
      onClose={onClose}
      onConfirm={async () => {
        const key = await rotate.mutateAsync({ keyId: of.id, overlapMs: Number(overlap) });
        const label = overlaps.find(({ value }) => value === overlap)?.label;
        onRotated(
          key,
          overlap === "0"
            ? "The one from before has stopped working."
            : `The one from before works for ${label} more: change your servers until then.`,
        );
      }}
    >
      <Text size="sm">
        The key keeps its id and gets a new secret. Tokens signed with the present one hold as long
        as that does.
      </Text>
      {earlier.length > 0 && (
        <div>
          <Text size="sm">
            {earlier.length === 1
              ? "An older secret still works, and goes on until its time:"
              : `${earlier.length} older secrets still work, and go on until their times:`}
          </Text>
          <ul className="times" aria-label="Older secrets work until">
            {earlier.map((until) => (
              <li key={until}>
                <Text size="sm" span>
                  {inFull(new Date(until))}
                </Text>
              </li>
            ))}
          </ul>
          <Text size="sm" c="dimmed">
            To end one sooner, revoke the key and create another.
          </Text>
        </div>
      )}
      <Select
        label="The present secret still works for"
        data={overlaps}
        value={overlap}
        onChange={(value) => setOverlap(value ?? "86400000")}
        allowDeselect={false}
      />
    </Confirm>
  );
}

function Revocation({ appId, of, onClose }: { appId: string; of: Key; onClose: () => void }) {
  const revoke = useRevokeKey(appId);
  return (
    <Confirm
      title={
        <>
          Revoke “<bdi>{labelOf(of)}</bdi>”?
        </>
      }
      action="Revoke"
      onClose={onClose}
      onConfirm={async () => {
        await revoke.mutateAsync(of.id);
        onClose();
        notifications.show({ message: "The key is revoked." });
      }}
    >
      {of.purpose === consolePurpose && (
        <Text size="sm">
          This is the key of the console itself: what consoles are listening to in this application
          ends, too. With their next use they make themselves another.
        </Text>
      )}
      <Text size="sm">
        Within a second it and every token signed with it stop working, and the subscriptions that
        it permitted end. It stays in the list, so that one can see what it was. There is no way
        back.
      </Text>
    </Confirm>
  );
}

function Deletion({ appId, of, onClose }: { appId: string; of: Key; onClose: () => void }) {
  const remove = useDeleteKey(appId);
  return (
    <Confirm
      title={
        <>
          Delete “<bdi>{labelOf(of)}</bdi>”?
        </>
      }
      action="Delete"
      onClose={onClose}
      onConfirm={async () => {
        await remove.mutateAsync(of.id);
        onClose();
        notifications.show({ message: "The key is deleted." });
      }}
    >
      <Text size="sm">
        It stops working within a second, as a revoked one does, and leaves the list, too.
      </Text>
    </Confirm>
  );
}
