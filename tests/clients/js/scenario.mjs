// Plays one scenario of a client and prints what came of it as JSON: `node CLIENT.mjs SCENARIO '{"http": …}'`.

/** An application's access token. */
export async function token({ https, tenant, app }) {
  const form = { client_id: app, client_secret: "any", grant_type: "client_credentials" };
  const body = new URLSearchParams({ ...form, scope: "https://graph.microsoft.com/.default" });
  const answer = await fetch(`${https}/${tenant}/oauth2/v2.0/token`, { method: "POST", body });
  return (await answer.json()).access_token;
}

/** Play the scenario that the command line names. */
export async function play(scenarios) {
  const [name, place] = process.argv.slice(2);
  console.log(JSON.stringify((await scenarios[name](JSON.parse(place))) ?? null));
}
