import type { Client, TokenSource } from "pandapush-client";
import { usePresence } from "./use-pandapush.js";

interface Member {
  id: string;
  name: string;
}

export function Lobby({ client, token }: { client: Client; token: TokenSource }) {
  const { members, error } = usePresence<Member>(client, "/APP_ID/presence/lobby", token);
  if (error !== undefined) return <p>Nobody can be seen: {error.message}</p>;
  return (
    <ul>
      {[...members].map(([id, { name }]) => (
        <li key={id}>{name}</li>
      ))}
    </ul>
  );
}
