/**
 * Every metric: its name, type, labels and meaning, for Prometheus and for statsd.
 * `docs/metrics.md` is generated from here.
 */

export interface StatsdMetric {
  /** Behind the prefix and a dot; `<…>` stands for what differs. */
  readonly name: string;
  /** What is sent behind the value: a count since the last time, a gauge, or a time. */
  readonly type: "c" | "g" | "ms";
  readonly help: string;
}

export interface Metric {
  /** In Prometheus. Base units; `_total` for what only rises. */
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly help: string;
  /** What tells its series apart, and what values there can be: their number is bounded. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Upper bounds, of histograms. */
  readonly buckets?: readonly number[];
  /** The same as Pandapush 2.2 called it. */
  readonly statsd?: readonly StatsdMetric[];
}

const host = { host: "`host:port` of each Redis host; `memory` on a node that stands alone" };
const app = { app: "ids of the largest applications, at most `METRICS_APPLICATIONS`; and `other`" };
const api = {
  api: "`publish` (`/channel`), `backend` (`/api`), `admin`, `other`; `/push` is not among them",
};
const seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

export const table = {
  build: {
    name: "pandapush_build_info",
    type: "gauge",
    help: "Always 1.",
    labels: { version: "that of Pandapush", rev: "the build's revision" },
  },
  ready: {
    name: "pandapush_ready",
    type: "gauge",
    help: "1 while a check of /ready is passed, 0 while it is not.",
    labels: { check: "`database`, `keys`, `redis`, `drain`" },
  },
  nodes: {
    name: "pandapush_cluster_nodes",
    type: "gauge",
    help: "Nodes that live as far as this one knows, itself among them.",
  },

  connections: {
    name: "pandapush_connections",
    type: "gauge",
    help: "Open WebSockets, with or without a session; of the other transports, sessions whose clients are connected by them.",
    labels: { transport: "`websocket`, `eventsource`, `long-polling`, `callback-polling`" },
    statsd: [
      { name: "connections.ws", type: "g", help: "Open WebSockets." },
      { name: "connections.http", type: "g", help: "All other connections." },
    ],
  },
  sessions: {
    name: "pandapush_sessions",
    type: "gauge",
    help: "Sessions that live at this node, connected or not.",
  },
  sessionsBegun: {
    name: "pandapush_sessions_begun_total",
    type: "counter",
    help: "Handshakes that succeeded.",
    statsd: [{ name: "handshake", type: "c", help: "Handshakes that succeeded." }],
  },
  sessionsEnded: {
    name: "pandapush_sessions_ended_total",
    type: "counter",
    help: "Sessions that ended at this node. `overflow`: more waited for its client than may; `moved`: it goes on at another node.",
    labels: { reason: "`disconnect`, `expiry`, `overflow`, `shutdown`, `moved`, `lost`" },
    statsd: [
      {
        name: "close",
        type: "c",
        help: "Sessions that ended, whatever for, at the node where they lived (2.2: at each node).",
      },
      { name: "disconnect", type: "c", help: "The same, as in 2.2." },
    ],
  },
  subscriptions: {
    name: "pandapush_subscriptions",
    type: "gauge",
    help: "Channels and patterns that sessions are subscribed to, counted for each session.",
  },
  subscribed: {
    name: "pandapush_subscribed_total",
    type: "counter",
    help: "Subscriptions that began. What was subscribed to already counts no second time.",
    statsd: [{ name: "subscribe", type: "c", help: "Subscriptions that began." }],
  },
  unsubscribed: {
    name: "pandapush_unsubscribed_total",
    type: "counter",
    help: "Subscriptions that ended, with their session too.",
    statsd: [
      { name: "unsubscribe", type: "c", help: "Subscriptions that ended, with their session too." },
    ],
  },
  channels: {
    name: "pandapush_channels",
    type: "gauge",
    help: "Channels and patterns that somebody is subscribed to here.",
  },

  published: {
    name: "pandapush_published_total",
    type: "counter",
    help: "Publications of clients and back ends that were given to the broker here.",
    statsd: [{ name: "publish", type: "c", help: "Publications of clients and back ends." }],
  },
  delivered: {
    name: "pandapush_delivered_total",
    type: "counter",
    help: "Publications given to sessions, the statistics on meta channels among them: one that three sessions hear counts three times.",
  },
  refusals: {
    name: "pandapush_refusals_total",
    type: "counter",
    help: "What was asked for and refused.",
    labels: {
      action:
        "what was asked for: `handshake`, `connect`, `subscribe`, `unsubscribe`, `disconnect`, `publish`, `other-meta`; `batch`, a request that could not be read; `http`, anything over REST",
      reason: "a code of [errors.md](errors.md)",
    },
  },
  batches: {
    name: "pandapush_fanout_batch_publications",
    type: "histogram",
    help: "How many publications of an application were delivered together. Grows with load.",
    buckets: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
  },
  backlogPublications: {
    name: "pandapush_backlog_publications",
    type: "gauge",
    help: "Publications that wait for their delivery here.",
  },
  backlogBytes: {
    name: "pandapush_backlog_bytes",
    type: "gauge",
    help: "What waits for its delivery, in characters of JSON text.",
  },
  outboxBytes: {
    name: "pandapush_outbox_bytes",
    type: "gauge",
    help: "What waits for sessions that are between two connections or polls, in characters of JSON text, as `MAX_OUTBOX_BYTES` counts.",
  },
  largestOutbox: {
    name: "pandapush_outbox_largest_bytes",
    type: "gauge",
    help: "The same of the session for which most waits.",
  },
  slowConsumers: {
    name: "pandapush_slow_consumers_total",
    type: "counter",
    help: "Connections that were closed because their clients read too slowly; their sessions go on.",
    labels: { transport: "`websocket`, `eventsource`" },
  },
  lost: {
    name: "pandapush_lost_publications_total",
    type: "counter",
    help: "How often publications of other nodes began to be lost here, because more came than could be delivered.",
  },
  missed: {
    name: "pandapush_broker_missed_total",
    type: "counter",
    help: "Channels and patterns of which this node may have missed something while a broker host could not be heard.",
  },

  responses: {
    name: "pandapush_http_responses_total",
    type: "counter",
    help: "Answers to requests over HTTP.",
    labels: { ...api, status: "the HTTP status" },
    statsd: [{ name: "responses.all.<status>", type: "c", help: "Answers with this HTTP status." }],
  },
  durations: {
    name: "pandapush_http_response_duration_seconds",
    type: "histogram",
    help: "From the head of a request to the end of its answer.",
    labels: api,
    buckets: seconds,
    statsd: [
      {
        name: "duration.all",
        type: "ms",
        help: "From the head of each request to the end of its answer.",
      },
    ],
  },

  brokerUp: {
    name: "pandapush_broker_up",
    type: "gauge",
    help: "1 while a broker host takes publications and all its topics are heard, else 0.",
    labels: host,
  },
  brokerDurations: {
    name: "pandapush_broker_publish_duration_seconds",
    type: "histogram",
    help: "From giving a publication to a Redis host to its answer.",
    labels: host,
    buckets: [0.00025, 0.0005, ...seconds.slice(0, 10)],
  },

  appConnections: {
    name: "pandapush_app_connections",
    type: "gauge",
    help: "Sessions with a subscription in the application.",
    labels: app,
  },
  appSubscriptions: {
    name: "pandapush_app_subscriptions",
    type: "gauge",
    help: "Their subscriptions in it.",
    labels: app,
  },
  appChannels: {
    name: "pandapush_app_channels",
    type: "gauge",
    help: "Its channels and patterns that somebody is subscribed to here.",
    labels: app,
  },
  appPublished: {
    name: "pandapush_app_published_total",
    type: "counter",
    help: "Its part of pandapush_published_total, while it was among the largest.",
    labels: app,
    statsd: [
      {
        name: "apps.<application id>.publish",
        type: "c",
        help: "Publications in the application.",
      },
    ],
  },
  appDelivered: {
    name: "pandapush_app_delivered_total",
    type: "counter",
    help: "Its part of pandapush_delivered_total, while it was among the largest.",
    labels: app,
  },
  appSubscribed: {
    name: "pandapush_app_subscribed_total",
    type: "counter",
    help: "Its part of pandapush_subscribed_total, without `meta` channels, while it was among the largest.",
    labels: app,
    statsd: [
      {
        name: "apps.<application id>.subscribe",
        type: "c",
        help: "Subscriptions in the application that began; not for `meta` channels.",
      },
    ],
  },
  appUnsubscribed: {
    name: "pandapush_app_unsubscribed_total",
    type: "counter",
    help: "Its part of pandapush_unsubscribed_total, without `meta` channels, while it was among the largest.",
    labels: app,
    statsd: [
      {
        name: "apps.<application id>.unsubscribe",
        type: "c",
        help: "Subscriptions in the application that ended; not for `meta` channels.",
      },
    ],
  },

  lag: {
    name: "pandapush_event_loop_lag_seconds",
    type: "histogram",
    help: "How late a timer of 100 ms came: what everything else had to wait for.",
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
  },
  started: {
    name: "process_start_time_seconds",
    type: "gauge",
    help: "When the process began, in seconds since 1970.",
  },
  cpu: {
    name: "process_cpu_seconds_total",
    type: "counter",
    help: "Time on processors, all threads together.",
  },
  memory: {
    name: "process_resident_memory_bytes",
    type: "gauge",
    help: "Memory that the process has.",
  },
  heap: {
    name: "nodejs_heap_size_used_bytes",
    type: "gauge",
    help: "What of it JavaScript objects use.",
  },
} as const satisfies Readonly<Record<string, Metric>>;

export type MetricName = keyof typeof table;
export type NamesOf<Type extends Metric["type"]> = {
  [Name in MetricName]: (typeof table)[Name]["type"] extends Type ? Name : never;
}[MetricName];
