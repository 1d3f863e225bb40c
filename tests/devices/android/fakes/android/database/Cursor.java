package android.database;

import java.io.Closeable;
import java.util.List;

public class Cursor implements Closeable {
  private final List<Object[]> rows;
  private int place = -1;

  public Cursor(List<Object[]> rows) { this.rows = rows; }
  public boolean moveToNext() { return ++place < rows.size(); }
  public String getString(int column) { return (String) rows.get(place)[column]; }
  public long getLong(int column) { return (Long) rows.get(place)[column]; }
  @Override public void close() {}
}
