import { Anchor, Button, Group, Skeleton, Stack, Text, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconPlus } from "@tabler/icons-react";
import { type FormEvent, useState } from "react";
import { Link, useNavigate } from "react-router";
import { ApiError } from "../api.js";
import { useApplications, useCreateApplication } from "../queries.js";
import { Copy } from "../ui/copy.js";
import { DataTable } from "../ui/data-table.js";
import { Dialog } from "../ui/dialog.js";
import { Empty } from "../ui/empty.js";
import { Heading } from "../ui/heading.js";
import { Name } from "../ui/name.js";
import { Pages, useListPlace } from "../ui/paging.js";
import { Problem } from "../ui/problem.js";
import { Search } from "../ui/search.js";
import { Submit } from "../ui/submit.js";
import { nameOr } from "../ui/text.js";
import { When } from "../ui/time.js";

/** `/admin`: the applications that the user administers. */
export function Applications() {
  const place = useListPlace();
  const { search, window, set } = place;
  const { data, error, refetch } = useApplications(window);
  const [isOpen, { open, close }] = useDisclosure();
  const isNew = search === "" && data?.total === 0;

  return (
    <>
      <Heading title="Applications" about="Each has its own channels, keys and people.">
        <Button leftSection={<IconPlus size={16} aria-hidden />} onClick={open}>
          New application
        </Button>
      </Heading>
      {isOpen && <NewApplication onClose={close} />}
      {!isNew && (
        <Search
          label="Search applications"
          placeholder="Search by name or id"
          value={search}
          onChange={(next) => set({ search: next, page: "" })}
        />
      )}
      {error !== null && <Problem error={error} onRetry={() => refetch()} />}
      {data === undefined && error === null && <Skeleton height={180} />}
      {isNew && (
        <Empty title="Create your first application">
          <Text c="dimmed">
            An application is a room of its own on this server: its channels begin with its id, its
            keys open no other, and nothing of it is heard elsewhere. Most people make one for each
            product and environment.
          </Text>
          <Button mt="sm" onClick={open}>
            New application
          </Button>
        </Empty>
      )}
      {data !== undefined && !isNew && (
        <>
          {data.items.length === 0 ? (
            <Empty title="Nothing found">
              <Text c="dimmed">
                No application of yours has “{search}” in its name or id.{" "}
                <Anchor component="button" type="button" onClick={() => set({ search: "" })}>
                  Show all
                </Anchor>
              </Text>
            </Empty>
          ) : (
            <DataTable
              label="Applications"
              rows={data.items}
              keyOf={({ id }) => id}
              columns={[
                {
                  name: "Name",
                  cell: ({ id, name }) => (
                    <Anchor component={Link} to={`/apps/${id}`} fw={600}>
                      <Name>{nameOr(name, "(no name)")}</Name>
                    </Anchor>
                  ),
                },
                {
                  name: "Id",
                  cell: ({ id, name }) => (
                    <Group gap={4} wrap="nowrap">
                      <span className="code id">{id}</span>
                      <Copy text={id} what={`the id of ${nameOr(name, id)}`} />
                    </Group>
                  ),
                },
                { name: "Created by", cell: ({ created_by }) => <Name>{created_by ?? "–"}</Name> },
                { name: "Created", cell: ({ created_at }) => <When at={created_at} none="–" /> },
              ]}
            />
          )}
          <Pages total={data.total} place={place}>
            {data.total === 1 ? "1 application" : `${data.total} applications`}
          </Pages>
        </>
      )}
    </>
  );
}

function NewApplication({ onClose }: { onClose: () => void }) {
  const [name, setName] = useState("");
  const create = useCreateApplication();
  const navigate = useNavigate();
  const { error } = create;
  const fault = error instanceof ApiError ? error.fields.name : undefined;

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (name.trim() === "") return;
    const { id } = await create.mutateAsync(name.trim());
    navigate(`/apps/${id}`);
  };

  return (
    <Dialog title="New application" onClose={onClose}>
      <form onSubmit={(event) => void submit(event).catch(() => undefined)}>
        <Stack>
          <TextInput
            label="Name"
            description="For people; you can change it later."
            placeholder="Campus chat, production"
            value={name}
            onChange={(event) => setName(event.currentTarget.value)}
            error={fault}
            required
            maxLength={255}
            data-autofocus
          />
          {error !== null && fault === undefined && <Problem error={error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              Cancel
            </Button>
            <Submit isBusy={create.isPending} isReady={name.trim() !== ""}>
              Create
            </Submit>
          </Group>
        </Stack>
      </form>
    </Dialog>
  );
}
