package android.content;

import android.database.Cursor;
import android.net.Uri;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;

/** Documents are files: a document's id is its path. */
public class ContentResolver {
  public InputStream openInputStream(Uri uri) throws IOException {
    return new FileInputStream(uri.path);
  }
  public Cursor query(Uri uri, String[] columns, String where, String[] values, String order) {
    List<Object[]> rows = new ArrayList<>();
    File[] files = new File(uri.path).listFiles();
    if (files == null) return null;
    for (File file : files) {
      rows.add(new Object[] {file.getPath(), file.getName(), file.length()});
    }
    return new Cursor(rows);
  }
}
