package android.provider;

import android.net.Uri;

public class DocumentsContract {
  public static class Document {
    public static final String COLUMN_DOCUMENT_ID = "document_id";
    public static final String COLUMN_DISPLAY_NAME = "_display_name";
    public static final String COLUMN_SIZE = "_size";
  }

  public static String getTreeDocumentId(Uri tree) { return tree.path; }
  public static Uri buildChildDocumentsUriUsingTree(Uri tree, String document) {
    return Uri.parse(document);
  }
  public static Uri buildDocumentUriUsingTree(Uri tree, String document) {
    return Uri.parse(document);
  }
}
