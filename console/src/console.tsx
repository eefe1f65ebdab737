import { Button, MantineProvider, Text } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { QueryClientProvider } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { createBrowserRouter, RouterProvider } from "react-router";
import { onSessionEnd } from "./api.js";
import { Feed } from "./live/feed.js";
import { Activity } from "./pages/activity.js";
import { Application } from "./pages/application.js";
import { Applications } from "./pages/applications.js";
import { Channels } from "./pages/channels.js";
import { Connections } from "./pages/connections.js";
import { Settings } from "./pages/settings.js";
import { createQueryClient } from "./queries.js";
import { Shell } from "./shell.js";
import { theme } from "./theme.js";
import { Dialog } from "./ui/dialog.js";
import { Lost } from "./ui/lost.js";

const router = createBrowserRouter(
  [
    {
      element: <Shell />,
      // For the moment in which a page that is opened directly loads its code.
      hydrateFallbackElement: <></>,
      errorElement: <Lost />,
      children: [
        { index: true, element: <Applications /> },
        { path: "activity", element: <Activity /> },
        {
          path: "apps/:id",
          element: <Application />,
          children: [
            {
              index: true,
              lazy: async () => ({ Component: (await import("./pages/overview.js")).Overview }),
            },
            {
              path: "live",
              lazy: async () => ({ Component: (await import("./pages/live.js")).Live }),
            },
            { path: "channels", element: <Channels /> },
            { path: "connections", element: <Connections /> },
            {
              path: "keys",
              lazy: async () => ({ Component: (await import("./pages/keys.js")).Keys }),
            },
            { path: "activity", element: <Activity /> },
            { path: "settings", element: <Settings /> },
            { path: "*", element: <Lost /> },
          ],
        },
        { path: "*", element: <Lost /> },
      ],
    },
  ],
  { basename: "/admin" },
);

export function Console() {
  const [isOver, setOver] = useState(false);
  const [client] = useState(createQueryClient);
  useEffect(
    () =>
      onSessionEnd(() => {
        setOver(true);
        // What it is listening to is for whoever is signed in.
        Feed.closeAll();
      }),
    [],
  );
  return (
    <MantineProvider theme={theme} defaultColorScheme="auto">
      <QueryClientProvider client={client}>
        <Notifications position="bottom-right" />
        <RouterProvider router={router} />
        {isOver && <SessionEnd />}
      </QueryClientProvider>
    </MantineProvider>
  );
}

/** Loading the page again shows the sign-in page, and leads back to where one was. */
function SessionEnd() {
  return (
    <Dialog title="Your session has ended">
      <Text mb="md">Sign in again; you come back to this page.</Text>
      <Button data-autofocus onClick={() => window.location.reload()}>
        Sign in
      </Button>
    </Dialog>
  );
}
