/** As in package.json. */
export const VERSION = "2.0.0-dev";
