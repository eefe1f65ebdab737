import { Skeleton, Stack } from "@mantine/core";
import { useEffect, useState, useSyncExternalStore } from "react";
import { Outlet, useOutletContext, useParams } from "react-router";
import type { ApplicationDetail } from "../api.js";
import { Feed, type FeedState } from "../live/feed.js";
import { isGone, useApplication } from "../queries.js";
import { Lost } from "../ui/lost.js";
import { Problem } from "../ui/problem.js";

interface Context {
  readonly app: ApplicationDetail;
  readonly feed: Feed;
}

/** For the pages of one application: what it is, and the live connection to it. */
export function useThisApplication(): Context {
  return useOutletContext<Context>();
}

export function useFeed(feed: Feed): FeedState {
  return useSyncExternalStore(feed.subscribe, feed.snapshot);
}

/** `/admin/apps/:id/…`: loads the application, and stays connected to it from page to page. */
export function Application() {
  const { id = "" } = useParams();
  const { data: app, error, refetch } = useApplication(id);
  const isThere = app !== undefined && !isGone(error);
  const [feed, setFeed] = useState<Feed>();

  useEffect(() => {
    if (!isThere) return;
    const opened = new Feed(id);
    setFeed(opened);
    return () => {
      opened.close();
      setFeed(undefined);
    };
  }, [id, isThere]);

  if (isGone(error)) {
    return app === undefined ? (
      <Lost message="No application has this id, or you are not one of its admins. Ask one of them to add you." />
    ) : (
      <Lost
        title="This application is no longer yours to see"
        message="It was deleted, or you are not one of its admins any more. Nothing of it is heard here now. Ask one of its admins to add you again."
      />
    );
  }
  if (app === undefined && error !== null)
    return <Problem error={error} onRetry={() => refetch()} />;
  if (app === undefined || feed?.appId !== id) {
    return (
      <Stack aria-busy="true" aria-label="Loading">
        <Skeleton height={40} width={260} />
        <Skeleton height={220} />
      </Stack>
    );
  }
  return <Outlet context={{ app, feed } satisfies Context} key={id} />;
}
