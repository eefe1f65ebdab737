import { Client } from "pandapush-client";
import { useState } from "react";
import { useConnectionState, useSubscription } from "./use-pandapush.js";

const client = new Client("https://push.example.com/push");

export function News() {
  const [news, setNews] = useState<readonly string[]>([]);
  const state = useConnectionState(client);
  const error = useSubscription<string>(client, "/APP_ID/public/news", (text) =>
    setNews((shown) => [...shown, text]),
  );
  if (error !== undefined) return <p>No news: {error.message}</p>;
  return (
    <ul title={state}>
      {news.map((text) => (
        <li key={text}>{text}</li>
      ))}
    </ul>
  );
}
