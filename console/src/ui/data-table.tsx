import { Table } from "@mantine/core";
import type { ReactNode } from "react";

export interface Column<Row> {
  /** "": what the cells hold needs no name, such as buttons. */
  readonly name: string;
  readonly cell: (row: Row) => ReactNode;
  readonly isNumber?: boolean;
}

/**
 * A table; on a phone each row is a card with its cells below each other. The roles say again what
 * the elements are: with another `display` browsers forget it.
 */
export function DataTable<Row>({
  label,
  columns,
  rows,
  keyOf,
}: {
  label: string;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  keyOf: (row: Row) => string | number;
}) {
  const align = (column: Column<Row>) =>
    column.isNumber === true || column.name === "" ? "right" : "left";
  return (
    <Table className="data" role="table" aria-label={label} verticalSpacing="sm">
      <Table.Thead role="rowgroup">
        <Table.Tr role="row">
          {columns.map((column) => (
            <Table.Th key={column.name} role="columnheader" ta={align(column)}>
              {column.name === "" ? <span className="hidden">Actions</span> : column.name}
            </Table.Th>
          ))}
        </Table.Tr>
      </Table.Thead>
      <Table.Tbody role="rowgroup">
        {rows.map((row) => (
          <Table.Tr key={keyOf(row)} role="row">
            {columns.map((column) => (
              <Table.Td
                key={column.name}
                role="cell"
                ta={align(column)}
                data-name={column.name === "" ? undefined : column.name}
              >
                <div>{column.cell(row)}</div>
              </Table.Td>
            ))}
          </Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  );
}
