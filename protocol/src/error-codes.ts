/** The `error` field of a reply: Bayeux 1.0, "error". `402:clientId:Missing required parameter` */
export function formatError(code: number, params: readonly string[], text: string): string {
  return `${code}:${params.join(",")}:${text}`;
}
