/** What the pages show of the server, kept fresh; and what changes it. */
import {
  keepPreviousData,
  QueryClient,
  useMutation,
  useQuery,
  useQueryClient,
} from "@tanstack/react-query";
import {
  ApiError,
  type AppLimits,
  type Application,
  type ApplicationDetail,
  type AuditEntry,
  type CreatedApplication,
  type CreatedKey,
  type Disconnected,
  disconnectUser,
  get,
  getPage,
  type Info,
  type Key,
  post,
  type RotatedKey,
  send,
} from "./api.js";

/** How often what is live is asked for again, in ms. */
const liveMs = 3_000;

/** How often it is asked whether one is still signed in, and may see the application, in ms. */
const rightsCheckMs = 10_000;

export function createQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        // A refusal stays one; only silence is worth another try.
        retry: (count, error) => count < 1 && error instanceof ApiError && error.status === 0,
        staleTime: 2_000,
      },
    },
  });
}

export function useInfo() {
  return useQuery({
    queryKey: ["info"],
    queryFn: ({ signal }) => get<Info>("/info", signal),
    // So that a page that asks for nothing else notices the end of its session.
    refetchInterval: rightsCheckMs,
  });
}

export interface Window {
  readonly search?: string | undefined;
  readonly limit: number;
  readonly offset: number;
}

export function useApplications(window: Window) {
  return useQuery({
    queryKey: ["applications", window],
    queryFn: ({ signal }) => getPage<Application>("/applications", { ...window }, signal),
    placeholderData: keepPreviousData,
  });
}

/** @param id absent: none is asked for */
export function useApplication(id: string | undefined) {
  return useQuery({
    queryKey: ["application", id],
    queryFn: ({ signal }) => get<ApplicationDetail>(`/application/${id}`, signal),
    enabled: id !== undefined,
    refetchInterval: ({ state }) => (isGone(state.error) ? false : rightsCheckMs),
  });
}

/** There is no such application, or it is not (any more) one's own: the server does not say which. */
export function isGone(error: Error | null): boolean {
  return error instanceof ApiError && error.status === 404;
}

export function useKeys(appId: string, window: Window) {
  return useQuery({
    queryKey: ["keys", appId, window],
    queryFn: ({ signal }) => getPage<Key>(`/application/${appId}/keys`, { ...window }, signal),
    placeholderData: keepPreviousData,
  });
}

/** @param appId absent: of all applications that the user administers */
export function useAudit(appId: string | undefined, window: Window) {
  const path = appId === undefined ? "/audit" : `/application/${appId}/audit`;
  return useQuery({
    queryKey: ["audit", appId, window],
    queryFn: ({ signal }) => getPage<AuditEntry>(path, { ...window }, signal),
    placeholderData: keepPreviousData,
  });
}

/** One page of a list of what is live in an application, asked for again and again. */
export function useLive<T>(appId: string, what: string, query: Record<string, string | number>) {
  return useQuery({
    queryKey: ["live", appId, what, query],
    queryFn: ({ signal }) => getPage<T>(`/application/${appId}/${what}`, query, signal),
    placeholderData: keepPreviousData,
    refetchInterval: liveMs,
  });
}

/** Something that changes the server, after which all that is shown is asked for again. */
function useChange<Input, Answer>(run: (input: Input) => Promise<Answer>) {
  const client = useQueryClient();
  return useMutation({ mutationFn: run, onSettled: () => client.invalidateQueries() });
}

export function useCreateApplication() {
  return useChange((name: string) => post<CreatedApplication>("/applications", { name }));
}

export function useUpdateApplication(id: string) {
  return useChange((change: { name?: string; admins?: string[]; limits?: Partial<AppLimits> }) =>
    post<{ id: string }>(`/application/${id}`, change),
  );
}

/** @param onDone leads away from the pages of what is gone, before anything is asked for again */
export function useDeleteApplication(id: string, onDone: () => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => send("DELETE", `/application/${id}`),
    onSuccess: () => {
      onDone();
      for (const list of ["applications", "audit"]) {
        void client.invalidateQueries({ queryKey: [list] });
      }
    },
  });
}

export function useCreateKey(appId: string) {
  return useChange((key: { purpose: string | null; expires: string | null }) =>
    post<CreatedKey>(`/application/${appId}/keys`, key),
  );
}

export function useRotateKey(appId: string) {
  return useChange(({ keyId, overlapMs }: { keyId: string; overlapMs: number }) =>
    post<RotatedKey>(`/application/${appId}/keys/${keyId}/rotate`, { overlap_ms: overlapMs }),
  );
}

export function useRevokeKey(appId: string) {
  return useChange((keyId: string) => post<object>(`/application/${appId}/keys/${keyId}/revoke`));
}

export function useDeleteKey(appId: string) {
  return useChange((keyId: string) => send("DELETE", `/application/${appId}/keys/${keyId}`));
}

export function useDisconnect(appId: string) {
  return useChange((connectionId: string) =>
    post<Disconnected>(`/application/${appId}/connections/${connectionId}/disconnect`),
  );
}

/** All sessions that are present as this user. */
export function useDisconnectUser(appId: string) {
  return useChange((presenceId: string) => disconnectUser(appId, presenceId));
}

/** Ends the session, also at the provider where one logged in, and leads to the sign-in page. */
export function signOut(): void {
  const form = document.createElement("form");
  form.method = "post";
  form.action = "/admin/logout";
  document.body.append(form);
  form.submit();
}
