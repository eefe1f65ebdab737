/** What surrounds every page: where one is, who one is, and the way out. */
import {
  ActionIcon,
  Anchor,
  AppShell,
  Badge,
  Burger,
  Group,
  Menu,
  NavLink,
  Text,
  Tooltip,
  UnstyledButton,
  useComputedColorScheme,
  useMantineColorScheme,
} from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import {
  IconApps,
  IconBroadcast,
  IconChevronDown,
  IconHash,
  IconHistory,
  IconKey,
  IconLayoutDashboard,
  IconLogout,
  IconMoon,
  IconPlugConnected,
  IconSettings,
  IconSun,
  IconTerminal2,
} from "@tabler/icons-react";
import { Link, Outlet, NavLink as RouterLink, useLocation, useMatch } from "react-router";
import { isGone, signOut, useApplication, useInfo } from "./queries.js";
import { Panda } from "./ui/panda.js";
import { nameOr } from "./ui/text.js";

const pages = [
  { to: "", label: "Overview", icon: IconLayoutDashboard },
  { to: "live", label: "Live console", icon: IconTerminal2 },
  { to: "channels", label: "Channels", icon: IconHash },
  { to: "connections", label: "Connections", icon: IconPlugConnected },
  { to: "keys", label: "Keys", icon: IconKey },
  { to: "activity", label: "Activity", icon: IconHistory },
  { to: "settings", label: "Settings", icon: IconSettings },
] as const;

export function Shell() {
  const [isOpen, { toggle, close }] = useDisclosure();
  const id = useMatch("/apps/:id/*")?.params.id;
  const isMissing = isGone(useApplication(id).error);
  return (
    <AppShell
      header={{ height: 56 }}
      navbar={{ width: 220, breakpoint: "sm", collapsed: { mobile: !isOpen } }}
      padding={{ base: "md", md: "xl" }}
    >
      <a href="#main" className="skip">
        Skip to the content
      </a>
      <AppShell.Header>
        <Group h="100%" px="md" gap="sm" wrap="nowrap">
          <Burger
            opened={isOpen}
            onClick={toggle}
            hiddenFrom="sm"
            size="sm"
            aria-label={isOpen ? "Close the navigation" : "Open the navigation"}
            aria-expanded={isOpen}
          />
          <Anchor
            component={Link}
            to="/"
            c="inherit"
            underline="never"
            aria-label="Pandapush: applications"
          >
            <Group gap={8} wrap="nowrap">
              <Panda />
              <Text fw={650} visibleFrom="xs">
                Pandapush
              </Text>
            </Group>
          </Anchor>
          <Environments />
          <Group ml="auto" gap="xs" wrap="nowrap">
            <ColorScheme />
            <Account />
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar p="sm" aria-label="Pages">
        <AppShell.Section grow>
          <NavLink
            component={RouterLink}
            to="/"
            end
            label="Applications"
            leftSection={<IconApps size={18} aria-hidden />}
            onClick={close}
          />
          {id === undefined || isMissing ? (
            <NavLink
              component={RouterLink}
              to="/activity"
              label="Activity"
              leftSection={<IconHistory size={18} aria-hidden />}
              onClick={close}
            />
          ) : (
            <ApplicationPages id={id} onChoose={close} />
          )}
        </AppShell.Section>
        <AppShell.Section>
          <Version />
        </AppShell.Section>
      </AppShell.Navbar>
      <AppShell.Main id="main" tabIndex={-1} style={{ outline: "none" }}>
        <Outlet />
      </AppShell.Main>
    </AppShell>
  );
}

function ApplicationPages({ id, onChoose }: { id: string; onChoose: () => void }) {
  const { data } = useApplication(id);
  const name = nameOr(data?.name ?? null, id);
  const { pathname, search } = useLocation();
  return (
    <>
      <Group gap={8} px="sm" mt="md" mb={4} wrap="nowrap">
        <IconBroadcast size={16} aria-hidden style={{ flex: "none" }} />
        <Text size="sm" fw={600} truncate="end" title={name}>
          <bdi>{name}</bdi>
        </Text>
      </Group>
      {pages.map(({ to, label, icon: Icon }) => (
        <NavLink
          key={label}
          component={RouterLink}
          to={addressOf(id, to, pathname, search)}
          end={to === ""}
          label={label}
          leftSection={<Icon size={18} aria-hidden />}
          onClick={onChoose}
        />
      ))}
    </>
  );
}

/** A page that one is on keeps what was chosen there. */
function addressOf(id: string, page: string, pathname: string, search: string): string {
  const address = page === "" ? `/apps/${id}` : `/apps/${id}/${page}`;
  return address === pathname ? address + search : address;
}

/** Other installations of the same people, such as staging; the choice leads to its console. */
function Environments() {
  const { data } = useInfo();
  if (data === undefined || (data.environments.length === 0 && data.environment === "local")) {
    return null;
  }
  const { environment, environments } = data;
  if (environments.length === 0) {
    return (
      <Badge variant="default" tt="none">
        {environment}
      </Badge>
    );
  }
  return (
    <Menu position="bottom-start">
      <Menu.Target>
        <UnstyledButton aria-label={`Environment ${environment}: choose another`}>
          <Badge
            variant="default"
            size="lg"
            tt="none"
            rightSection={<IconChevronDown size={14} aria-hidden />}
          >
            {environment}
          </Badge>
        </UnstyledButton>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>Environments</Menu.Label>
        {environments.map(({ name, url }) => (
          <Menu.Item
            key={name}
            component="a"
            href={`${url.replace(/\/+$/, "")}/admin`}
            fw={name === environment ? 600 : 400}
          >
            {name}
          </Menu.Item>
        ))}
      </Menu.Dropdown>
    </Menu>
  );
}

function ColorScheme() {
  const { setColorScheme } = useMantineColorScheme();
  const isDark = useComputedColorScheme("light") === "dark";
  const label = isDark ? "Light colours" : "Dark colours";
  return (
    <Tooltip label={label}>
      <ActionIcon
        variant="default"
        size="lg"
        aria-label={label}
        onClick={() => setColorScheme(isDark ? "light" : "dark")}
      >
        {isDark ? <IconSun size={18} aria-hidden /> : <IconMoon size={18} aria-hidden />}
      </ActionIcon>
    </Tooltip>
  );
}

function Account() {
  const { data } = useInfo();
  const name = data?.username ?? "…";
  return (
    <Menu position="bottom-end" width={220}>
      <Menu.Target>
        <UnstyledButton aria-label={`Signed in as ${name}`}>
          <Group gap={6} wrap="nowrap">
            <Text size="sm" fw={500} maw={{ base: 110, sm: 240 }} truncate="end">
              <bdi>{name}</bdi>
            </Text>
            <IconChevronDown size={16} aria-hidden />
          </Group>
        </UnstyledButton>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label className="broken">
          Signed in as <bdi>{name}</bdi>
        </Menu.Label>
        <Menu.Item component="a" href="/admin/api/openapi.json" target="_blank">
          API description (OpenAPI)
        </Menu.Item>
        <Menu.Divider />
        <Menu.Item leftSection={<IconLogout size={16} aria-hidden />} onClick={() => signOut()}>
          Sign out
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}

function Version() {
  const { data } = useInfo();
  if (data === undefined) return null;
  return (
    <Text size="xs" c="dimmed" px="sm">
      Pandapush {data.version}
    </Text>
  );
}
