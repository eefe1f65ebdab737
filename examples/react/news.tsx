import { Client } from "pandapush-client";
import { useState } from "react";
import { useConnectionState, useSubscription } from "./use-pandapush.js";

interface News {
  text: string;
}

const client = new Client("https://push.example.com/push");

export function NewsList() {
  const [list, setList] = useState<readonly (News & { key: number })[]>([]);
  const state = useConnectionState(client);
  const error = useSubscription<News>(client, "/APP_ID/public/news", (news) =>
    setList((shown) => [...shown, { ...news, key: shown.length }]),
  );
  if (error !== undefined) return <p>No news: {error.message}</p>;
  return (
    <ul title={state}>
      {list.map(({ key, text }) => (
        <li key={key}>{text}</li>
      ))}
    </ul>
  );
}
