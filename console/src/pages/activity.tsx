import { Anchor, Skeleton, Text } from "@mantine/core";
import { Fragment } from "react";
import { Link, useParams } from "react-router";
import type { AuditEntry } from "../api.js";
import { useAudit } from "../queries.js";
import { type Column, DataTable } from "../ui/data-table.js";
import { Empty } from "../ui/empty.js";
import { Heading } from "../ui/heading.js";
import { Name } from "../ui/name.js";
import { Pages, useListPlace } from "../ui/paging.js";
import { Problem } from "../ui/problem.js";
import { inFull, When } from "../ui/time.js";

/** What is written in the audit table, as people say it. */
const deeds: Readonly<Record<string, string>> = {
  "application.create": "created the application",
  "application.update": "changed the application",
  "application.limits": "changed the limits",
  "application.delete": "deleted the application",
  "key.create": "created a key",
  "key.delete": "deleted a key",
  "key.revoke": "revoked a key",
  "key.rotate": "gave a key a new secret",
  "admin.reset-password": "reset the admin’s password",
  "connection.disconnect": "disconnected a client",
  "user.disconnect": "disconnected a presence user",
};

const applicationColumn: Column<AuditEntry> = {
  name: "Application",
  cell: ({ application_id, application_name }) =>
    application_id === null ? (
      "–"
    ) : (
      <Anchor component={Link} to={`/apps/${application_id}`} title={application_id}>
        {application_name ?? <span className="code id">{application_id}</span>}
      </Anchor>
    ),
};

/** Who changed what: of one application below `/apps/:id`, else of all that one administers. */
export function Activity() {
  const { id } = useParams();
  const place = useListPlace();
  const { limit, offset } = place.window;
  const { data, error, refetch } = useAudit(id, { limit, offset });
  return (
    <>
      <Heading
        title="Activity"
        about={
          id === undefined
            ? "Who changed what, in all applications that you administer."
            : "Who changed what in this application."
        }
      />
      {error !== null && <Problem error={error} onRetry={() => refetch()} />}
      {data === undefined && error === null && <Skeleton height={180} />}
      {data?.total === 0 && (
        <Empty title="Nothing has been changed yet">
          Every change to an application, its people and its keys is written down here, with its
          author and time.
        </Empty>
      )}
      {data !== undefined && data.total > 0 && (
        <>
          <DataTable
            label="Changes"
            rows={data.items}
            keyOf={(entry) => entry.id}
            columns={[
              { name: "When", cell: ({ at }) => <When at={at} none="–" /> },
              { name: "Who", cell: ({ user }) => <Name>{user ?? "–"}</Name> },
              { name: "What", cell: ({ action }) => deeds[action] ?? action },
              ...(id === undefined ? [applicationColumn] : []),
              { name: "Details", cell: ({ details }) => <Details details={details} /> },
            ]}
          />
          <Pages total={data.total} place={place}>
            {data.total === 1 ? "1 change" : `${data.total} changes`}
          </Pages>
        </>
      )}
    </>
  );
}

function Details({ details }: Pick<AuditEntry, "details">) {
  const entries = Object.entries(details).filter(([, value]) => value !== null);
  if (entries.length === 0) return <Text c="dimmed">–</Text>;
  return (
    <Text size="sm" style={{ overflowWrap: "anywhere" }}>
      {entries.map(([name, value], index) => (
        <Fragment key={name}>
          {index > 0 && " · "}
          {name.replaceAll("_", " ")}: <bdi>{show(value)}</bdi>
        </Fragment>
      ))}
    </Text>
  );
}

function show(value: unknown): string {
  if (value === null) return "none";
  if (Array.isArray(value)) return value.length === 0 ? "none" : value.join(", ");
  if (typeof value === "object") {
    const parts = Object.entries(value).map(
      ([name, each]) => `${name.replaceAll("_", " ")} ${show(each)}`,
    );
    return parts.join(", ");
  }
  if (typeof value !== "string") return JSON.stringify(value);
  return /^\d{4}-\d\d-\d\dT/.test(value) ? inFull(new Date(value)) : value;
}
